//! A validator's duty: each record that it was drawn for is fetched, run again, and attested; first the commitment, then its
//! opening. What is known is kept in memory: after a restart it is found out again, and it is the same.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aria_chain::attestation::{Attestation, Opening, SignedAttestation, Statement, Verdict};
use aria_chain::codec::Versioned as _;
use aria_chain::ids::{ModelId, NodeId};
use aria_chain::limits::ATTESTATION_ITEMS_MAX;
use aria_chain::units::Height;
use aria_runtime::rules::audit::takes_openings;
use aria_runtime::state::{Audit, Phase, Reader, RecordPlace};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::challenge;
use super::doubt::Check;
use super::judge::{Case, judge};
use super::layer::{Search, accusers};
use super::models::Models;
use crate::chain::Chain;
use crate::consensus::talk::Gossip;
use crate::error::NodeError;
use crate::network::Channel;

/// Records that are run again at once; the engine computes them together.
const AT_ONCE: usize = 8;
/// Of these, records of models that this node does not serve: they may wait for one to be loaded.
const OTHERS_AT_ONCE: usize = 4;
/// How often to look again where no block comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What happens within this time is answered together.
const PAUSE: Duration = Duration::from_millis(20);
/// Roots of others that wait to be looked at.
const CHECKS_MAX: usize = 64;
/// Records that wait to be looked through for what is false about them.
const SEARCHES_MAX: usize = 64;
/// After this long without a block that has it, an attestation is said again.
const SAY_AGAIN: Duration = Duration::from_secs(20);
/// A record that could not be judged here is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What is known about a record.
enum Known {
    /// Nothing yet.
    Nothing,
    /// It is being run again, by the run of this number.
    Working(u64),
    /// The finding, which will not change.
    Found(Opening),
    /// This node cannot tell; perhaps later.
    Unable(Instant),
}

/// A record that this node was drawn for.
struct Task {
    audit: Audit,
    /// The record's, once it was read.
    model: Option<ModelId>,
    known: Known,
    /// When it last committed and opened, in this phase.
    said: [Option<Instant>; 2],
    /// Whether this node looked at what came of a challenge.
    has_looked: bool,
}

impl Task {
    fn new(audit: Audit) -> Task {
        Task { audit, model: None, known: Known::Nothing, said: [None, None], has_looked: false }
    }

    /// The audit went on.
    fn update(&mut self, audit: Audit) {
        if self.audit.phase != audit.phase {
            // What was opened before is known to all: who said it again would show its secret before its time.
            self.known = Known::Nothing;
            self.said = [None, None];
        }
        self.audit = audit;
    }

    /// Whether this node looks at the root of another one, now that all have opened: by chance, which nobody knew before.
    fn check(self, place: RecordPlace, me: NodeId) -> Option<Check> {
        let Known::Found(Opening { secret, verdict: Verdict::Valid, .. }) = self.known else { return None };
        (self.audit.phase == Phase::Drawn).then(|| Check::draw(place, &self.audit, me, &secret)).flatten()
    }

    /// What is looked for now that this node's own run found it false: it may be asked where.
    fn search(&self, place: RecordPlace) -> Option<Search> {
        let Known::Found(Opening { verdict: Verdict::Invalid, .. }) = self.known else { return None };
        (self.audit.phase == Phase::Drawn).then_some(Search { place, record: self.audit.record })
    }

    /// Takes what a run found, unless something else is asked by now.
    fn note(&mut self, run: u64, found: Option<Opening>) {
        if matches!(self.known, Known::Working(current) if current == run) {
            self.known = found.map_or_else(|| Known::Unable(Instant::now()), Known::Found);
        }
    }

    /// What came of a challenge is looked at as soon as it is over, and not only when it is time to try again.
    fn notice(&mut self, place: RecordPlace, chain: &Chain) {
        let is_stuck = self.audit.phase == Phase::Drawn && matches!(self.known, Known::Unable(_));
        if is_stuck && !self.has_looked && challenge::is_over(chain, place) {
            self.has_looked = true;
            self.known = Known::Nothing;
        }
    }

    /// Whether it is known to be of a model that this node does not serve.
    fn is_other(&self, models: &Models) -> bool {
        self.model.is_some_and(|model| !models.serves(&model))
    }

    fn may_begin(&self) -> bool {
        let is_free = match self.known {
            Known::Nothing => true,
            Known::Unable(since) => since.elapsed() >= TRY_AGAIN,
            Known::Found(_) | Known::Working(_) => false,
        };
        is_free && matches!(self.audit.phase, Phase::Drawn | Phase::Disputed | Phase::Doubted)
    }

    /// Whether a statement was not made lately; notes it.
    fn may_say(&mut self, is_opening: bool) -> bool {
        let last = &mut self.said[usize::from(is_opening)];
        let is_due = last.is_none_or(|since| since.elapsed() >= SAY_AGAIN);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// Audits until told to stop.
pub async fn run(chain: Arc<Chain>, models: Models, stop: CancellationToken) -> Result<(), NodeError> {
    let mut tips = chain.tip_changes();
    let mut work = JoinSet::new();
    let mut duty =
        Duty { chain, models: Arc::new(models), tasks: None, runs: 0, checks: Vec::new(), searches: Vec::new() };
    loop {
        // What ends within the pause is looked at together.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(done) = work.join_next() => duty.note(done),
            changed = tips.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        tokio::time::sleep(PAUSE).await;
        while let Some(done) = work.try_join_next() {
            duty.note(done);
        }
        let free = AT_ONCE.saturating_sub(work.len());
        // The state is read from disk.
        let looked = spawn_blocking(move || {
            let begun = duty.look(free);
            (duty, begun)
        });
        let (back, begun) =
            looked.await.map_err(|error| NodeError::Task { task: "audits", reason: error.to_string() })?;
        duty = back;
        for (place, job) in begun? {
            let (chain, models) = (Arc::clone(&duty.chain), Arc::clone(&duty.models));
            work.spawn(async move {
                match job {
                    Job::Judge(case, run) => Some((place, run, judge(&chain, &models, &case).await)),
                    Job::Check(check) => {
                        check.run(&chain, &models).await;
                        None
                    }
                    Job::Search(search) => {
                        search.run(&chain, &models).await;
                        None
                    }
                }
            });
        }
    }
}

/// What takes a while.
enum Job {
    /// A record of which this node has to say something, and the number of the run.
    Judge(Box<Case>, u64),
    /// Another auditor's root, which it looks at by chance.
    Check(Check),
    /// Where a record is false that this node calls so.
    Search(Search),
}

/// What the run of this number found about the record at a place, if it could tell. None: it was nothing that is attested.
type Done = Option<(RecordPlace, u64, Option<Opening>)>;

struct Duty {
    chain: Arc<Chain>,
    models: Arc<Models>,
    /// Records that this node was drawn for, once the state was read; from then on blocks tell what changes.
    tasks: Option<BTreeMap<RecordPlace, Task>>,
    /// How many runs were begun.
    runs: u64,
    /// Roots of other auditors that are to be looked at when there is time.
    checks: Vec<Check>,
    /// Records that this node calls false, where it looks for the layer before anybody asks.
    searches: Vec<Search>,
}

impl Duty {
    fn note(&mut self, done: Result<Done, tokio::task::JoinError>) {
        // A task that panicked is a defect of ours; its record stays as it is and runs out of time.
        if let (Ok(Some((place, run, found))), Some(tasks)) = (done, &mut self.tasks)
            && let Some(task) = tasks.get_mut(&place)
        {
            task.note(run, found);
            self.searches.extend(task.search(place).filter(|_| self.searches.len() < SEARCHES_MAX));
        }
    }

    /// Says what can be said, and returns what can begin: at most `free` records.
    fn look(&mut self, free: usize) -> Result<Vec<(RecordPlace, Job)>, NodeError> {
        self.learn()?;
        let (me, chain) = (self.chain.key.node_id(), Arc::clone(&self.chain));
        let next = chain.tip_height().next().unwrap_or(chain.tip_height());
        let (mut commits, mut opens) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        let (mut begun, models) = (Vec::new(), Arc::clone(&self.models));
        let mut others = OTHERS_AT_ONCE.saturating_sub(self.others_at_work());
        for (place, task) in self.tasks.iter_mut().flatten() {
            task.notice(*place, &chain);
            let Some(own) = task.audit.members.iter().find(|member| member.node == me) else { continue };
            if own.verdict.is_some() {
                continue;
            }
            let Known::Found(opening) = task.known else {
                if begun.len() < free && task.may_begin() {
                    self.runs += 1;
                    let job = begin(&chain, (&models, &mut others), *place, task, self.runs)?;
                    begun.extend(job.map(|job| (*place, job)));
                }
                continue;
            };
            let (height, index) = *place;
            if own.commitment.is_none() {
                if task.may_say(false) {
                    let commitment = opening.commitment(chain.genesis.chain_id(), &me, &task.audit.record);
                    commits.entry(height).or_default().push((index, commitment));
                }
            } else if takes_openings(&task.audit, height, next, chain.genesis.params()) && task.may_say(true) {
                opens.entry(height).or_default().push((index, opening));
            }
        }
        self.say_all(commits, Statement::Commit);
        self.say_all(opens, Statement::Open);
        // What has to be said goes before what may be looked at, and what may be asked for before the rest.
        let idle = free.saturating_sub(begun.len()).min(self.searches.len());
        begun.extend(self.searches.drain(..idle).map(|search| (search.place, Job::Search(search))));
        let idle = free.saturating_sub(begun.len()).min(self.checks.len());
        begun.extend(self.checks.drain(..idle).map(|check| (check.place, Job::Check(check))));
        Ok(begun)
    }

    /// Records of models that this node does not serve which are being run again.
    fn others_at_work(&self) -> usize {
        let is_other = |task: &&Task| task.is_other(&self.models) && matches!(task.known, Known::Working(_));
        self.tasks.iter().flat_map(BTreeMap::values).filter(is_other).count()
    }

    /// Brings the tasks up to date.
    fn learn(&mut self) -> Result<(), NodeError> {
        let news = self.chain.take_audit_news();
        let Some(tasks) = &mut self.tasks else {
            // What the news told is in what is read now.
            let me = self.chain.key.node_id();
            let all = Reader(&self.chain.view()).audits(usize::MAX);
            let all = all.map_err(|error| NodeError::Execution(error.to_string()))?;
            let is_mine = |audit: &Audit| audit.members.iter().any(|member| member.node == me);
            let mine = all.into_iter().filter(|(_, audit)| is_mine(audit));
            self.tasks = Some(mine.map(|(place, audit)| (place, Task::new(audit))).collect());
            return Ok(());
        };
        for (place, audit) in news {
            match audit {
                None => {
                    let ended = tasks.remove(&place);
                    let check = ended.and_then(|task| task.check(place, self.chain.key.node_id()));
                    self.checks.extend(check.filter(|_| self.checks.len() < CHECKS_MAX));
                }
                Some(audit) => match tasks.entry(place) {
                    Entry::Occupied(task) => task.into_mut().update(audit),
                    Entry::Vacant(free) => drop(free.insert(Task::new(audit))),
                },
            }
        }
        Ok(())
    }

    /// Says all that belongs to each height, in as few statements as there can be.
    fn say_all<I: Clone>(&self, all: BTreeMap<Height, Vec<I>>, statement: impl Fn(Vec<I>) -> Statement) {
        for (height, items) in all {
            items.chunks(ATTESTATION_ITEMS_MAX).for_each(|items| self.say(height, statement(items.to_vec())));
        }
    }

    fn say(&self, height: Height, statement: Statement) {
        let chain = &self.chain;
        let chain_id = chain.genesis.chain_id().clone();
        let attestation = Attestation { chain_id: chain_id.clone(), auditor: chain.key.node_id(), height, statement };
        let signature = chain.key.sign_attestation(&chain_id, &attestation.id());
        let signed = SignedAttestation { attestation, signature };
        let news = Gossip::Attestation(Box::new(signed.clone())).encode();
        match signed.verify(&chain_id) {
            Ok(verified) => {
                chain.attestations().insert(verified);
                chain.wake.notify_one();
                if let Some(network) = chain.network.get() {
                    network.broadcast(Channel::Gossip, &news, None);
                }
            }
            Err(error) => tracing::error!(%error, "an attestation of this node's own is not sound"),
        }
    }
}

/// What is to be run again by the run of this number, if now: of models that this node does not serve, so many more may begin.
fn begin(
    chain: &Chain,
    (models, others): (&Models, &mut usize),
    place: RecordPlace,
    task: &mut Task,
    run: u64,
) -> Result<Option<Job>, NodeError> {
    if task.is_other(models) && *others == 0 {
        return Ok(None);
    }
    let Some(proof) = chain.store.proof(&task.audit.record)? else {
        // Of before this store began.
        tracing::debug!(height = %place.0, index = place.1, "a record to audit is not in the store");
        task.known = Known::Unable(Instant::now());
        return Ok(None);
    };
    task.model = Some(proof.record.model_id);
    if task.is_other(models) {
        let Some(left) = others.checked_sub(1) else { return Ok(None) };
        *others = left;
    }
    task.known = Known::Working(run);
    let me = chain.key.node_id();
    let drawn: Vec<NodeId> = task.audit.members.iter().map(|member| member.node).filter(|node| *node != me).collect();
    let doubt = Reader(&chain.view()).doubt(place.0, place.1);
    let doubt = doubt.map_err(|error| NodeError::Execution(error.to_string()))?;
    let (phase, doubted) = (task.audit.phase, doubt.map(|doubt| doubt.accused));
    let accusers = accusers(&task.audit);
    Ok(Some(Job::Judge(Box::new(Case { place, proof, others: drawn, accusers, phase, doubted }), run)))
}

#[cfg(test)]
mod tests {
    use aria_chain::ids::{Digest, RecordId};
    use aria_runtime::rules::settle::Earned;

    use super::*;

    fn audit(phase: Phase) -> Audit {
        Audit {
            record: RecordId::new([1; 32]),
            requester: NodeId::new([2; 32]),
            stages: Vec::new(),
            earned: Earned::default(),
            tokens: 0,
            seed: Digest::ZERO,
            phase,
            members: Vec::new(),
            first: Vec::new(),
            outcome: None,
        }
    }

    #[test]
    fn a_judge_says_nothing_that_it_opened_as_an_auditor() {
        let opened = Opening { secret: [3; 32], verdict: Verdict::Valid, root: Digest::ZERO };
        let mut task = Task::new(audit(Phase::Drawn));
        task.known = Known::Working(1);
        task.note(1, Some(opened));
        task.update(audit(Phase::Drawn));
        assert!(matches!(task.known, Known::Found(found) if found == opened));
        task.update(audit(Phase::Disputed));
        assert!(task.may_begin());
        task.known = Known::Working(2);
        // A run for what was asked before ends late.
        task.note(1, Some(opened));
        assert!(matches!(task.known, Known::Working(2)));
    }
}
