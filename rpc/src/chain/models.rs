//! Models that the chain knows: those that are registered, and those that wait for voters to confirm them.

use std::fmt;
use std::str::FromStr;

use aria_chain::certificate::ValidatorSet;
use aria_chain::ids::{Digest, IdError, ModelId};
use aria_chain::limits::MODEL_PROPOSALS_MAX;
use aria_chain::model::Shape;
use aria_runtime::params::Params;
use aria_runtime::rules::model::confirmed_power;
use aria_runtime::state::{Model, ModelProposal, ProposalIds, Reader, StateError, StoreView};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::api::{Answer, unavailable};
use super::arguments::{Arguments, invalid};
use super::rewards::params;
use super::transactions::page_limit;
use super::views;
use crate::services::Services;

/// What was shown last: registered models come first, in order of digest, then proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Registered(ModelId),
    Proposed(ProposalIds),
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Registered(model) => write!(f, "{model}"),
            Shown::Proposed((model, proposal)) => write!(f, "{model}:{proposal}"),
        }
    }
}

impl FromStr for Shown {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Shown, IdError> {
        Ok(match text.split_once(':') {
            None => Shown::Registered(text.parse()?),
            Some((model, proposal)) => Shown::Proposed((model.parse()?, proposal.parse::<Digest>()?)),
        })
    }
}

/// Which of them are asked for.
fn wanted(arguments: &Arguments) -> Result<(bool, bool), ErrorObjectOwned> {
    match arguments.get("status").map(Value::as_str) {
        None => Ok((true, true)),
        Some(Some("registered")) => Ok((true, false)),
        Some(Some("proposed")) => Ok((false, true)),
        Some(_) => Err(invalid("status", "must be `registered` or `proposed`")),
    }
}

/// Models, page by page: those registered, then what is proposed and can still be confirmed.
pub(super) fn list_models(services: &dyn Services, arguments: &Arguments) -> Answer {
    let (limit, (registered, proposed)) = (page_limit(arguments)?, wanted(arguments)?);
    let after: Option<Shown> = arguments.opt_parse("cursor")?;
    let (store, params) = (services.store(), params(services)?);
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let view = StoreView(&*store);
    let unreadable = |error: StateError| unavailable(&error);
    let mut models = Vec::new();
    if registered && !matches!(after, Some(Shown::Proposed(_))) {
        let after = match &after {
            Some(Shown::Registered(model)) => Some(model),
            Some(Shown::Proposed(_)) | None => None,
        };
        let found = view.models_after(after, limit + 1).map_err(unreadable)?;
        models.extend(found.iter().map(|(id, model)| (Shown::Registered(*id), registered_view(id, model))));
    }
    if proposed && models.len() <= limit {
        let voters = Reader(&view).voters().map_err(unreadable)?;
        let next = tip.height.next().unwrap_or(tip.height);
        let all = Reader(&view).model_proposals(MODEL_PROPOSALS_MAX).map_err(unreadable)?;
        let rest = all.iter().filter(|(ids, proposal)| is_behind(ids, after) && proposal.stands(next, &params));
        models.extend(rest.map(|one| (Shown::Proposed(one.0), proposal_view(one, &voters, &params))));
    }
    let next = models.get(limit - 1).filter(|_| models.len() > limit).map(|(shown, _)| shown.to_string());
    models.truncate(limit);
    Ok(json!({
        "at": views::at(&tip),
        "registration_fee": params.model_fee().to_string(),
        "models": models.into_iter().map(|(_, view)| view).collect::<Vec<Value>>(),
        "next_cursor": next,
    }))
}

fn is_behind(ids: &ProposalIds, after: Option<Shown>) -> bool {
    match after {
        Some(Shown::Proposed(last)) => *ids > last,
        Some(Shown::Registered(_)) | None => true,
    }
}

fn registered_view(id: &ModelId, model: &Model) -> Value {
    let mut view = model_view(id, &model.name, &model.shape);
    view["status"] = json!("registered");
    view
}

/// Power as text, like everywhere; the share in parts per million, rounded down.
fn proposal_view(
    ((model, id), proposal): &(ProposalIds, ModelProposal),
    voters: &ValidatorSet,
    params: &Params,
) -> Value {
    let (power, total) = (confirmed_power(proposal, voters), voters.total_power());
    let share_ppm = u128::from(power) * 1_000_000 / u128::from(total.max(1));
    let mut view = model_view(model, &proposal.name, &proposal.shape);
    view["status"] = json!("proposed");
    view["proposal"] = json!(id);
    view["proposer"] = json!(proposal.proposer);
    view["height"] = json!(proposal.height);
    view["ends"] = json!(proposal.ends(params));
    view["confirmed_by"] = json!(proposal.confirmed_by);
    view["confirmed_power"] = json!(power.to_string());
    view["total_power"] = json!(total.to_string());
    view["confirmed_ppm"] = json!(u64::try_from(share_ppm).unwrap_or(1_000_000));
    view
}

/// A token multiplies and adds once for each weight, so there are half as many weights as operations.
fn model_view(id: &ModelId, name: &str, shape: &Shape) -> Value {
    let ops = shape.ops_per_token().ok();
    json!({
        "model_id": id,
        "name": name,
        "shape": shape,
        "parameters": ops.map(|ops| ops / 2),
        "ops_per_token": ops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        let (model, proposal) = (ModelId::new([1; 32]), Digest::new([2; 32]));
        for shown in [Shown::Registered(model), Shown::Proposed((model, proposal))] {
            assert_eq!(shown.to_string().parse(), Ok(shown));
        }
        for bad in ["", ":", "12", &format!("{model}:"), &format!("{model}:{proposal}:")] {
            assert!(bad.parse::<Shown>().is_err(), "{bad}");
        }
    }
}
