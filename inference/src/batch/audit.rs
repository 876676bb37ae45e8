//! A claim being re-executed: prompt and claimed tokens as one prefill per choice, compared at every output position.

use super::plan::{Planned, Quota};
use super::reply::VerdictReply;
use super::slab::Slab;
use crate::backend::CancelToken;
use crate::engine::{Engine, EngineError};
use crate::forward::{Row, Wants};
use crate::generation::FinishReason;
use crate::generation::text::Continuation;
use crate::sampler::{DrawDomain, Sampler};
use crate::transcript::{Hash, Transcript, choice_root, request_root, text_hash};
use crate::verify::{Claim, Reason, Verdict};

/// A claim being re-executed, one choice after the other.
#[derive(Debug)]
pub(super) struct Audit {
    claim: Claim,
    cancel: CancelToken,
    /// Taken at the end.
    reply: Option<VerdictReply<Verdict>>,
    current: Rerun,
    /// Of the choices already found right.
    roots: Vec<Hash>,
    /// The same under the verifier's secret.
    witnesses: Vec<Hash>,
}

/// The choice at hand.
#[derive(Debug)]
struct Rerun {
    session: usize,
    /// Tokens of prompt and claim computed so far.
    fed: usize,
    redraw: Redraw,
}

impl Rerun {
    fn start(engine: &Engine, sessions: &mut Slab, claim: &Claim, choice: usize) -> Rerun {
        let session = engine.witnessed_session(positions(claim, choice), claim.request.salt, claim.secret);
        Rerun { session: sessions.insert(session), fed: 0, redraw: Redraw::new(engine, claim, choice) }
    }
}

/// Positions that a claimed choice takes: its last token is drawn, never fed.
pub(super) fn positions(claim: &Claim, choice: usize) -> usize {
    claim.request.prompt.len() + claim.choices[choice].tokens.len() - 1
}

/// The rows of the next positions of a claimed choice, from `fed` on.
pub(super) fn next_rows(
    (claim, choice): (&Claim, usize),
    (session, fed): (usize, usize),
    redraw: &Redraw,
    quota: Quota,
    rows: &mut Vec<Row>,
) -> Planned {
    let (first, prompt) = (rows.len(), &claim.request.prompt);
    let claimed = &claim.choices[choice].tokens;
    let mut logits = 0;
    for position in fed..positions(claim, choice) {
        let index = (position + 1).checked_sub(prompt.len());
        if rows.len() - first == quota.prefill || (index.is_some() && logits == quota.logits) {
            break;
        }
        let wants = index.map_or(Wants::NOTHING, |index| redraw.wants(index));
        logits += usize::from(index.is_some());
        let token = prompt.get(position).unwrap_or_else(|| &claimed[position - prompt.len()]);
        rows.push(Row { session, token: *token, position, wants });
    }
    Planned { rows: first..rows.len(), logits: 0..logits }
}

/// The draws of one choice, made again.
#[derive(Debug)]
pub(super) struct Redraw {
    choice: usize,
    sampler: Sampler,
    continuation: Continuation,
}

impl Redraw {
    pub(super) fn new(engine: &Engine, claim: &Claim, choice: usize) -> Redraw {
        let request = &claim.request;
        let domain = DrawDomain::new(&engine.info().digest, &request.prompt);
        Redraw {
            choice,
            sampler: Sampler::new(&request.sampling, domain, small(choice), &request.prompt),
            continuation: Continuation::new(engine.tokenizer(), &request.stop, request.max_tokens),
        }
    }

    /// What the draw of the `index`-th token needs.
    fn wants(&self, index: usize) -> Wants {
        Wants::greatest(self.sampler.needs_after(index - self.continuation.tokens.len()))
    }

    /// Looks at the rows of a pass that are this choice's: no fault, and every claimed token is drawn.
    pub(super) fn compare(
        &mut self,
        engine: &mut Engine,
        claim: &Claim,
        rows: &[Row],
        part: &Planned,
    ) -> Result<(), Reason> {
        let mut logits = part.logits.clone();
        for index in part.rows.clone() {
            if engine.first_fault(rows, index..index + 1).is_some() {
                return Err(Reason::NotFinite { choice: small(self.choice), position: small(rows[index].position) });
            }
            if rows[index].wants.any()
                && let Some(at) = logits.next()
            {
                self.draw(engine, claim, at)?;
            }
        }
        Ok(())
    }

    /// Draws the next token and compares it with the claim's.
    fn draw(&mut self, engine: &mut Engine, claim: &Claim, logits: usize) -> Result<(), Reason> {
        let (choice, index) = (small(self.choice), self.continuation.tokens.len());
        let position = claim.position(index);
        if self.continuation.finish.is_some() {
            return Err(Reason::PastEnd { choice, position });
        }
        let claimed = claim.choices[self.choice].tokens[index];
        let canonical = self.sampler.next(&mut engine.scores(logits), position);
        if canonical != claimed {
            return Err(Reason::Token { choice, position, claimed, canonical });
        }
        let _text = self.continuation.accept(engine.tokenizer(), canonical);
        Ok(())
    }

    /// How the choice ends, where that is as claimed.
    pub(super) fn end(&self, claim: &Claim) -> Result<FinishReason, Reason> {
        let choice = small(self.choice);
        let Some(canonical) = self.continuation.finish else {
            return Err(Reason::Truncated { choice, position: claim.position(self.continuation.tokens.len()) });
        };
        let claimed = claim.choices[self.choice].finish;
        if canonical != claimed { Err(Reason::Finish { choice, claimed, canonical }) } else { Ok(canonical) }
    }
}

fn small(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Audit {
    /// Begins, or gives the verdict at once where no computation is needed.
    pub(super) fn start(
        engine: &Engine,
        sessions: &mut Slab,
        claim: Claim,
        cancel: CancelToken,
        reply: VerdictReply<Verdict>,
    ) -> Option<Audit> {
        if let Err(reason) = claim.check(engine.info().hyper.vocab, engine.info().context) {
            reply.end(Ok(Verdict::Invalid(reason)));
            return None;
        }
        let current = Rerun::start(engine, sessions, &claim, 0);
        Some(Audit { claim, cancel, reply: Some(reply), current, roots: Vec::new(), witnesses: Vec::new() })
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(super) fn needs(&self) -> (usize, usize) {
        (1, self.claim.request.positions())
    }

    /// Adds the next chunk of prompt and claimed tokens; the last claimed token is drawn, never fed.
    pub(super) fn plan(&self, quota: Quota, rows: &mut Vec<Row>) -> Planned {
        let Rerun { session, fed, redraw } = &self.current;
        next_rows((&self.claim, self.roots.len()), (*session, *fed), redraw, quota, rows)
    }

    /// Compares the pass just computed. False when there is a verdict.
    pub(super) fn go_on(&mut self, engine: &mut Engine, sessions: &mut Slab, rows: &[Row], part: &Planned) -> bool {
        if let Err(reason) = self.current.redraw.compare(engine, &self.claim, rows, part) {
            return self.refute(sessions, reason);
        }
        self.current.fed += part.rows.len();
        if self.current.fed < positions(&self.claim, self.roots.len()) {
            return true;
        }
        match self.close(engine, sessions) {
            Ok(()) if self.roots.len() < self.claim.choices.len() => {
                sessions.remove(self.current.session);
                self.current = Rerun::start(engine, sessions, &self.claim, self.roots.len());
                true
            }
            Ok(()) if request_root(&self.roots) != self.claim.transcript_root => {
                self.refute(sessions, Reason::Transcript)
            }
            Ok(()) => {
                let witness = self.claim.secret.map(|_| request_root(&self.witnesses));
                let verdict = engine.check_float_mode().map(|()| Verdict::Valid(witness)).map_err(EngineError::from);
                self.finish(sessions, verdict)
            }
            Err(reason) => self.refute(sessions, reason),
        }
    }

    /// Checks the end of a choice whose tokens are right, and notes its root.
    fn close(&mut self, engine: &Engine, sessions: &Slab) -> Result<(), Reason> {
        let finish = self.current.redraw.end(&self.claim)?;
        let claimed = &self.claim.choices[self.roots.len()];
        let session = sessions.get(self.current.session);
        let root_of = |transcript: &Transcript, salt: &Hash| {
            let text = text_hash(salt, &self.claim.request.prompt, &claimed.tokens, finish);
            choice_root(&engine.info().digest, &transcript.boundary_roots(), &text)
        };
        let salt = &self.claim.request.salt;
        self.roots.push(session.transcript().map_or([0; 32], |transcript| root_of(transcript, salt)));
        self.witnesses.extend(session.witness().zip(self.claim.secret).map(|(run, secret)| root_of(run, &secret)));
        Ok(())
    }

    fn refute(&mut self, sessions: &mut Slab, reason: Reason) -> bool {
        self.finish(sessions, Ok(Verdict::Invalid(reason)))
    }

    /// Frees the session and gives the verdict. Always false: the task is over.
    fn finish(&mut self, sessions: &mut Slab, verdict: Result<Verdict, EngineError>) -> bool {
        sessions.remove(self.current.session);
        if let Some(reply) = self.reply.take() {
            reply.end(verdict);
        }
        false
    }

    /// Ends it from outside.
    pub(super) fn end(mut self, sessions: &mut Slab, verdict: Result<Verdict, EngineError>) {
        self.finish(sessions, verdict);
    }
}
