//! Audits: who was drawn, what they said, how it ended, and what that means for a node's reputation.

use aria_chain::attestation::Verdict;
use aria_chain::record::RecordStatus;
use aria_chain::units::Height;
use aria_runtime::state::{Audit, Challenge, Doubt, Member, Phase, Reader, StoreView};
use serde_json::{Value, json};

use super::api::{Answer, unavailable};
use super::arguments::Arguments;
use super::views;
use crate::services::Services;

/// The audit of a record, going on or ended. Null: there is no such record, or none of its kind is audited.
pub(super) fn get_audit(services: &dyn Services, arguments: &Arguments) -> Answer {
    let (id, store) = (arguments.parse("id")?, services.store());
    let Some(entry) = store.record(&id).map_err(|error| unavailable(&error))? else { return Ok(Value::Null) };
    let ended = store.audit(&id).map_err(|error| unavailable(&error))?;
    let state = StoreView(&*store);
    let going_on = Reader(&state).audit(entry.height, entry.index).map_err(|error| unavailable(&error))?;
    let doubt = Reader(&state).doubt(entry.height, entry.index).map_err(|error| unavailable(&error))?;
    let doubt = going_on.as_ref().zip(doubt).map(|(audit, doubt)| doubted(audit, &doubt));
    let challenge = Reader(&state).challenge(entry.height, entry.index).map_err(|error| unavailable(&error))?;
    let Some(audit) = ended.as_deref().and_then(Audit::from_bytes).or(going_on) else { return Ok(Value::Null) };
    let mut view = view(&audit, (entry.height, entry.index), entry.status);
    view["doubt"] = doubt.unwrap_or(Value::Null);
    view["challenge"] = challenge.as_ref().map_or(Value::Null, challenged);
    Ok(view)
}

/// Who says that an auditor did not run the record, and who judges that.
fn doubted(audit: &Audit, doubt: &Doubt) -> Value {
    json!({
        "by": doubt.by,
        "deposit": doubt.deposit.to_string(),
        "auditor": doubt.accused.node,
        "judges": audit.members.iter().map(member).collect::<Vec<Value>>(),
    })
}

/// Who asks the provider for what did not come, and how much of it did.
fn challenged(challenge: &Challenge) -> Value {
    json!({
        "by": challenge.by,
        "deposit": challenge.deposit.to_string(),
        "spent": challenge.spent.to_string(),
        "until": challenge.until,
        "parts": (challenge.parts > 0).then_some(challenge.parts),
        "delivered": challenge.delivered.count_ones(),
        "answered": challenge.is_answered(),
    })
}

/// How a node's checked records have ended. A node of which nothing was settled has the reputation of the beginning.
pub(super) fn get_reputation(services: &dyn Services, arguments: &Arguments) -> Answer {
    let (node, store) = (arguments.parse("node")?, services.store());
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let reputation = Reader(&StoreView(&*store)).reputation(&node).map_err(|error| unavailable(&error))?;
    Ok(json!({
        "at": views::at(&tip),
        "node_id": node,
        "score_ppm": reputation.score_ppm,
        "verified": reputation.verified,
        "refuted": reputation.refuted,
        "unavailable": reputation.unavailable,
        "misjudged": reputation.misjudged,
        "may_audit": reputation.may_audit(),
    }))
}

fn view(audit: &Audit, (height, index): (Height, u32), status: RecordStatus) -> Value {
    let phase = match (audit.outcome, audit.phase) {
        (Some(_), _) => "ended",
        (None, Phase::Waiting) => "waiting",
        (None, Phase::Drawn) => "drawn",
        (None, Phase::Passed) => "passed",
        (None, Phase::Disputed) => "disputed",
        (None, Phase::Doubted) => "doubted",
    };
    let is_drawn = !audit.members.is_empty();
    json!({
        "record_id": audit.record,
        "height": height,
        "index": index,
        "status": status,
        "phase": phase,
        "was_disputed": audit.phase == Phase::Disputed,
        "seed": (audit.seed != aria_chain::ids::Digest::ZERO).then_some(audit.seed),
        "draw": if is_drawn { json!(true) } else if audit.phase == Phase::Passed { json!(false) } else { Value::Null },
        "auditors": audit.members.iter().map(member).collect::<Vec<Value>>(),
        "first_verdicts": audit.first.iter().map(said).collect::<Vec<Value>>(),
        "settled_at": audit.outcome.map(|(_, height)| height),
        "requester": audit.requester,
        "fee": audit.earned.fee.to_string(),
        "audit_fee": audit.earned.audit_fee.to_string(),
        "work": audit.earned.work.get().to_string(),
        "reward": audit.earned.reward.to_string(),
        "providers": audit.stages.iter().map(|stage| stage.node_id).collect::<Vec<_>>(),
    })
}

fn member(member: &Member) -> Value {
    json!({
        "node_id": member.node,
        "power": member.power,
        "commitment": member.commitment,
        "verdict": member.verdict,
        "root": member.verdict.map(|_| member.root),
    })
}

fn said((node, verdict): &(aria_chain::ids::NodeId, Verdict)) -> Value {
    json!({"node_id": node, "verdict": verdict})
}
