//! A claim being re-executed: prompt and claimed tokens as one prefill per choice, compared at every output position.

use super::plan::{Planned, Quota};
use super::reply::VerdictReply;
use super::slab::Slab;
use crate::backend::CancelToken;
use crate::engine::{Engine, EngineError};
use crate::forward::{Row, Wants};
use crate::generation::text::Continuation;
use crate::sampler::{DrawDomain, Sampler};
use crate::transcript::{Hash, Transcript, request_root};
use crate::verify::{Claim, Reason, Verdict};

/// A claim being re-executed, one choice after the other.
#[derive(Debug)]
pub(super) struct Audit {
    claim: Claim,
    cancel: CancelToken,
    /// Taken at the end.
    reply: Option<VerdictReply>,
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
    sampler: Sampler,
    continuation: Continuation,
}

impl Rerun {
    fn start(engine: &Engine, sessions: &mut Slab, claim: &Claim, choice: usize) -> Rerun {
        let request = &claim.request;
        let domain = DrawDomain::new(&engine.info().digest, &request.prompt);
        let index = u32::try_from(choice).unwrap_or(u32::MAX);
        let positions = request.prompt.len() + claim.choices[choice].tokens.len() - 1;
        Rerun {
            session: sessions.insert(engine.witnessed_session(positions, request.salt, claim.secret)),
            fed: 0,
            sampler: Sampler::new(&request.sampling, domain, index, &request.prompt),
            continuation: Continuation::new(engine.tokenizer(), &request.stop, request.max_tokens),
        }
    }
}

impl Audit {
    /// Begins, or gives the verdict at once where no computation is needed.
    pub(super) fn start(
        engine: &Engine,
        sessions: &mut Slab,
        claim: Claim,
        cancel: CancelToken,
        reply: VerdictReply,
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
        let (first, prompt) = (rows.len(), &self.claim.request.prompt);
        let claimed = &self.claim.choices[self.roots.len()].tokens;
        let mut logits = 0;
        for position in self.current.fed..prompt.len() + claimed.len() - 1 {
            let index = (position + 1).checked_sub(prompt.len());
            if rows.len() - first == quota.prefill || (index.is_some() && logits == quota.logits) {
                break;
            }
            let drawn = self.current.continuation.tokens.len();
            let needs = |index: usize| self.current.sampler.needs_after(index - drawn);
            let wants = index.map_or(Wants::NOTHING, |index| Wants::greatest(needs(index)));
            logits += usize::from(index.is_some());
            let token = prompt.get(position).unwrap_or_else(|| &claimed[position - prompt.len()]);
            rows.push(Row { session: self.current.session, token: *token, position, wants });
        }
        Planned { rows: first..rows.len(), logits: 0..logits }
    }

    /// Compares the pass just computed. False when there is a verdict.
    pub(super) fn go_on(&mut self, engine: &mut Engine, sessions: &mut Slab, rows: &[Row], part: &Planned) -> bool {
        let mut logits = part.logits.clone();
        for index in part.rows.clone() {
            let row = rows[index];
            if engine.first_fault(rows, index..index + 1).is_some() {
                let position = u32::try_from(row.position).unwrap_or(u32::MAX);
                return self.refute(sessions, Reason::NotFinite { choice: self.choice(), position });
            }
            if row.wants.any()
                && let Some(at) = logits.next()
                && let Err(reason) = self.compare(engine, at)
            {
                return self.refute(sessions, reason);
            }
        }
        self.current.fed += part.rows.len();
        let claimed = &self.claim.choices[self.roots.len()];
        if self.current.fed < self.claim.request.prompt.len() + claimed.tokens.len() - 1 {
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

    fn choice(&self) -> u32 {
        u32::try_from(self.roots.len()).unwrap_or(u32::MAX)
    }

    /// Draws the next token and compares it with the claim's.
    fn compare(&mut self, engine: &mut Engine, logits: usize) -> Result<(), Reason> {
        let (choice, index) = (self.choice(), self.current.continuation.tokens.len());
        let position = self.claim.position(index);
        if self.current.continuation.finish.is_some() {
            return Err(Reason::PastEnd { choice, position });
        }
        let claimed = self.claim.choices[self.roots.len()].tokens[index];
        let canonical = self.current.sampler.next(&mut engine.scores(logits), position);
        if canonical != claimed {
            return Err(Reason::Token { choice, position, claimed, canonical });
        }
        let _text = self.current.continuation.accept(engine.tokenizer(), canonical);
        Ok(())
    }

    /// Checks the end of a choice whose tokens are right, and notes its root.
    fn close(&mut self, engine: &Engine, sessions: &Slab) -> Result<(), Reason> {
        let choice = self.choice();
        let claimed = &self.claim.choices[self.roots.len()];
        let continuation = &self.current.continuation;
        let Some(canonical) = continuation.finish else {
            return Err(Reason::Truncated { choice, position: self.claim.position(continuation.tokens.len()) });
        };
        if canonical != claimed.finish {
            return Err(Reason::Finish { choice, claimed: claimed.finish, canonical });
        }
        let session = sessions.get(self.current.session);
        let root_of = |transcript: &Transcript| {
            transcript.choice_root(&engine.info().digest, &self.claim.request.prompt, &claimed.tokens, canonical)
        };
        self.roots.push(session.transcript().map_or([0; 32], root_of));
        self.witnesses.extend(session.witness().map(root_of));
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
