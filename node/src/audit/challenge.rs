//! What an audit needs and its provider does not deliver is asked for on the chain, where that can be done in time; then this node waits
//! for it, and says that it is missing only if it comes there neither.

use std::sync::Arc;
use std::time::Duration;

use aria_chain::codec::Versioned as _;
use aria_chain::transaction::Action;
use aria_runtime::rules::challenge::challenged_until;
use aria_runtime::state::{Phase, Reader, RecordPlace};
use tokio::task::spawn_blocking;

use super::judge::{self, ASKED_MAX, Case, Fetched};
use super::payload::Payload;
use crate::chain::Chain;

/// Questions over the wire before the chain is asked: it takes blocks to answer, and the time of an audit is counted in them.
const ASKED_FIRST: usize = 4;
/// How often to try to challenge, and how long in between: another order of this node may have the same number at the same time.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Whether a provider was asked, and its answer is there or will not come.
pub(super) fn is_over(chain: &Chain, (height, index): RecordPlace) -> bool {
    let Ok(next) = chain.tip_height().next() else { return false };
    let challenge = Reader(&chain.view()).challenge(height, index);
    challenge.is_ok_and(|challenge| challenge.is_some_and(|challenge| !challenge.stands(next)))
}

/// Gets what lies behind a record from the chain, if it is there, or over the wire. None: it may come to the chain yet.
pub(super) async fn fetch(chain: &Arc<Chain>, case: &Case) -> Option<Fetched> {
    if case.phase != Phase::Drawn {
        return Some(judge::fetch(chain, case, ASKED_MAX).await);
    }
    match posted(chain, case).await {
        Posted::Payload(payload) => return Some(Fetched::Payload(payload)),
        // Somebody else of the committee may have it all the same.
        Posted::Garbage => {
            return Some(match judge::fetch(chain, case, ASKED_MAX).await {
                Fetched::Payload(payload) => Fetched::Payload(payload),
                Fetched::Withheld | Fetched::Unreached => Fetched::Withheld,
            });
        }
        Posted::Nothing => {}
    }
    let mut fetched = Fetched::Unreached;
    for asked_max in [ASKED_FIRST, ASKED_MAX - ASKED_FIRST] {
        fetched = judge::fetch(chain, case, asked_max).await;
        match fetched {
            Fetched::Payload(_) => break,
            Fetched::Withheld if comes(chain, case).await => return None,
            Fetched::Withheld | Fetched::Unreached => {}
        }
    }
    Some(fetched)
}

/// What a provider posted.
enum Posted {
    /// Not all of it, or nothing.
    Nothing,
    /// What is behind the record.
    Payload(Box<Payload>),
    /// Something else, or something that this node cannot open.
    Garbage,
}

async fn posted(chain: &Arc<Chain>, case: &Case) -> Posted {
    let (own, place, record) = (Arc::clone(chain), case.place, case.proof.record.id());
    let opened = spawn_blocking(move || {
        let view = own.view();
        let challenge = Reader(&view).challenge(place.0, place.1).ok().flatten()?;
        let parts = if challenge.is_answered() { challenge.parts } else { return None };
        let sealed = Reader(&view).delivered(place, parts).ok().flatten()?;
        Some(own.key.open((own.genesis.chain_id(), &record), &sealed))
    });
    let Ok(Some(opened)) = opened.await else { return Posted::Nothing };
    let read = opened.map_err(|error| error.to_string());
    let read = read.and_then(|bytes| {
        let payload = Payload::decode(&bytes).map_err(|error| error.to_string())?;
        Ok((payload, bytes))
    });
    match read {
        Ok((payload, bytes)) if payload.belongs_to(&case.proof.request, &case.proof.record) => {
            tracing::info!(%record, "its provider posted what an audit needs");
            chain.payloads.borrow(record, bytes);
            Posted::Payload(Box::new(payload))
        }
        Ok(_) => {
            tracing::info!(%record, "what its provider posted belongs to something else");
            Posted::Garbage
        }
        Err(error) => {
            tracing::info!(%record, error, "what its provider posted is no payload");
            Posted::Garbage
        }
    }
}

/// Whether it may still come to the chain; asks for it, if nobody did.
async fn comes(chain: &Arc<Chain>, case: &Case) -> bool {
    let (place, record) = (case.place, case.proof.record.id());
    for _ in 0..TRIES {
        let own = Arc::clone(chain);
        // It panics only by a defect of ours; then there is the wire.
        let Ok(asked) = spawn_blocking(move || ask(&own, place)).await else { return false };
        match asked {
            Ok(is_new) => {
                if is_new {
                    tracing::info!(%record, "nobody delivered what an audit needs; its provider is challenged to post it");
                }
                return true;
            }
            Err(reason) => tracing::debug!(%record, reason, "its provider cannot be challenged now"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

/// Asks for what is behind a record, unless somebody did; whether this is new. Err: it cannot be asked for (any more). Blocks for a disk
/// sync.
fn ask(chain: &Chain, (height, index): RecordPlace) -> Result<bool, String> {
    let challenge = Reader(&chain.view()).challenge(height, index).map_err(|error| error.to_string())?;
    if let Some(challenge) = challenge {
        let next = chain.tip_height().next().map_err(|error| error.to_string())?;
        // An answer that has come meanwhile is looked at when this node tries again.
        let is_open = challenge.is_answered() || challenge.stands(next);
        return if is_open { Ok(false) } else { Err("it was challenged and did not answer".into()) };
    }
    let action = Action::Challenge { height, index };
    if chain.own_orders().iter().any(|order| order.transaction().action == action) {
        chain.repeat_orders();
        return Ok(false);
    }
    let until = challenged_until(height, chain.genesis.params()).ok_or("audits of this chain are too short")?;
    chain.order(action, until).map(|()| true)
}
