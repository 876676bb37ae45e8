//! `aria infer --at`: an answer of a node elsewhere, asked for and paid by the account of this machine's key. That node puts the
//! question into a request; this program looks at what it signs, before the answer and after.

use anyhow::{Context, bail, ensure};
use aria_chain::codec::Versioned;
use aria_chain::ids::NodeId;
use aria_chain::keys::NodeKey;
use aria_chain::record::InferenceRecord;
use aria_chain::request::{AuditMode, InferenceRequest};
use aria_chain::units::NanoAria;
use serde_json::{Value, json};

use super::Setting;
use super::infer::{Answer, body, stream};
use super::wallet::door;
use crate::amount::Amount;
use crate::cli::InferArgs;
use crate::client::{post_json, rpc};
use crate::model::EMBEDDED_NAME;
use crate::services::gateway::ppm;

/// HTTP's name for: sign first.
const PAYMENT_REQUIRED: u16 = 402;

/// What a node would run.
struct Offer {
    api: String,
    request: InferenceRequest,
    provider: NodeId,
}

/// Asks, signs, listens, and signs for what came.
pub(super) async fn ask_at(setting: &Setting, args: &InferArgs) -> anyhow::Result<Answer> {
    let key = setting.own_key()?;
    let fee = args.pay.map_or(NanoAria::ZERO, |pay| pay.0);
    ensure!(
        !args.private || fee == NanoAria::ZERO,
        "nobody may check a --private answer, so nothing is paid for it; leave out --pay"
    );
    let (mut offers, mut refusals) = (Vec::new(), Vec::new());
    for api in &args.at {
        let url = if api.contains("://") { api.clone() } else { format!("http://{api}") };
        match offer(url.trim_end_matches('/'), &key, fee, args).await {
            Ok(offer) => offers.push(offer),
            Err(error) => refusals.push(format!("{api}: {error:#}")),
        }
    }
    let offer = best(setting, args, offers).await?;
    let Some(offer) = offer else { bail!("no node can be asked: {}", refusals.join("; ")) };
    take(setting, args, &key, &offer).await
}

/// What one of the nodes offers to run.
async fn offer(api: &str, key: &NodeKey, fee: NanoAria, args: &InferArgs) -> anyhow::Result<Offer> {
    let mut body = body(args, EMBEDDED_NAME);
    body["aria"]["requester"] = json!(key.node_id());
    let (status, offer) = post_json(&format!("{api}/chat/completions"), args.api_key.as_deref(), &body).await?;
    if status != PAYMENT_REQUIRED || offer["aria"]["request"].is_null() {
        bail!("{}", offer["error"]["message"].as_str().unwrap_or("it has no request to sign; is it an ARIA node?"));
    }
    let request = InferenceRequest::decode(&bytes(&offer["aria"]["request"])?).context("the request to sign")?;
    check_request(&request, key, fee, args)?;
    let provider = offer["aria"]["provider"].as_str().and_then(|id| id.parse().ok()).context("who would run it")?;
    Ok(Offer { api: api.to_owned(), request, provider })
}

/// The offer of the node with the best reputation, among those that still have one. A single one is taken as it is.
async fn best(setting: &Setting, args: &InferArgs, mut offers: Vec<Offer>) -> anyhow::Result<Option<Offer>> {
    if offers.len() < 2 {
        return Ok(offers.pop());
    }
    let url =
        door(setting, args.rpc.as_deref()).context("reputations are looked up at a node that you trust: --rpc")?;
    let mut scored = Vec::new();
    for offer in offers {
        let reputation = rpc(&url, "chain_getReputation", json!([offer.provider])).await?;
        if reputation["may_audit"] == json!(true) {
            scored.push((reputation["score_ppm"].as_u64().unwrap_or(0), offer));
        }
    }
    // Of equals the one that is named first.
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    Ok(scored.into_iter().next().map(|(_, offer)| offer))
}

/// Signs an offer, listens, and signs for what came.
async fn take(setting: &Setting, args: &InferArgs, key: &NodeKey, offer: &Offer) -> anyhow::Result<Answer> {
    let Offer { api, request, provider } = offer;
    let (mut body, id) = (body(args, EMBEDDED_NAME), request.id());
    body["aria"] = json!({"request_id": id, "signature": key.sign_request(&request.chain_id, &id).to_string()});
    let answer = stream(setting, api, args.api_key.as_deref(), &body).await?;
    let record = InferenceRecord::decode(&bytes(&answer.aria["receipt_for"])?).context("the record to sign for")?;
    check_record(&record, offer, &answer)?;
    let receipt = key.sign_receipt(&request.chain_id, &record.id()).to_string();
    let receipt = json!({"record_id": record.id(), "signature": receipt});
    let (status, taken) = post_json(&format!("{api}/aria/receipts"), args.api_key.as_deref(), &receipt).await?;
    if !(200..300).contains(&status) {
        bail!("the receipt was not taken: {}", taken["error"]["message"].as_str().unwrap_or("no reason is given"));
    }
    if !setting.json {
        let (fee, chain) = (Amount(request.max_fee), &request.chain_id);
        eprint!("\n({fee} to node {provider} and its auditors on {chain}, if they find it right) ");
    }
    Ok(answer)
}

fn bytes(hex_digits: &Value) -> anyhow::Result<Vec<u8>> {
    hex::decode(hex_digits.as_str().unwrap_or_default()).context("the node sent what is no hex")
}

/// What can be seen of a request without its model: a node must not have more signed than was asked for.
fn check_request(request: &InferenceRequest, key: &NodeKey, fee: NanoAria, args: &InferArgs) -> anyhow::Result<()> {
    request.check().context("the request to sign")?;
    let audit = if args.private { AuditMode::None } else { AuditMode::Committee };
    let is_asked = [
        ("requester", request.requester == key.node_id()),
        ("max_fee", request.max_fee == fee),
        ("audit", request.audit == audit),
        ("max_tokens", request.max_tokens == args.max_tokens && request.choices == 1),
        ("temperature", i64::from(request.temperature_ppm) == ppm(args.temperature)),
        ("top_p", i64::from(request.top_p_ppm) == ppm(args.top_p).max(1)),
        ("seed", args.seed.is_none_or(|seed| seed == request.seed)),
    ];
    match is_asked.into_iter().find(|(_, is_right)| !is_right) {
        Some((field, _)) => bail!("the node wants another {field} signed than was asked for; nothing was signed"),
        None => Ok(()),
    }
}

/// A receipt is for the answer that came.
fn check_record(record: &InferenceRecord, offer: &Offer, answer: &Answer) -> anyhow::Result<()> {
    let came = answer.usage["completion_tokens"].as_u64();
    ensure!(
        record.stages.iter().any(|stage| stage.node_id == offer.provider),
        "another node than {} ran it; no receipt was given, and nothing is paid",
        offer.provider
    );
    ensure!(
        record.request_id == offer.request.id() && record.model_id == offer.request.model_id,
        "the node wants a receipt for another request; none was given, and nothing is paid"
    );
    ensure!(
        came == Some(u64::from(record.tokens_generated)),
        "the record says {} tokens and the answer {came:?}; no receipt was given, and nothing is paid",
        record.tokens_generated
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use aria_chain::ids::ModelId;
    use aria_chain::request::TaskType;
    use aria_chain::units::Height;
    use aria_inference::generation::GenerationRequest;
    use aria_inference::sampler::Sampling;
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::services::gateway::{Secrets, Terms, request};

    #[test]
    fn what_was_not_asked_for_is_not_signed() {
        let cli = Cli::parse_from(["aria", "infer", "x", "--max-tokens", "8", "--seed", "7", "--pay", "0.003"]);
        let Command::Infer(args) = cli.command else { panic!("it asks") };
        let (key, fee) = (NodeKey::from_seed(&[1; 32]), NanoAria::new(3_000_000));
        let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, seed: 7, ..Sampling::default() };
        let generation = GenerationRequest {
            prompt: vec![1],
            choices: 1,
            max_tokens: 8,
            stop: Vec::new(),
            sampling,
            logprobs: None,
            salt: [0; 32],
        };
        let terms = Terms { audit: AuditMode::Committee, task: TaskType::Any, max_fee: fee };
        let chain = "aria-test".parse().expect("a name");
        let secrets = Secrets::draw().expect("randomness");
        let here = (&chain, ModelId::new([2; 32]));
        let asked = request(key.node_id(), here, Height::new(5), (&generation, terms), &secrets);
        assert!(check_request(&asked, &key, fee, &args).is_ok());
        let changed = |change: &dyn Fn(&mut InferenceRequest)| {
            let mut other = asked.clone();
            change(&mut other);
            check_request(&other, &key, fee, &args).expect_err("it is another").to_string()
        };
        assert!(changed(&|other| other.requester = NodeId::new([9; 32])).contains("another requester"));
        assert!(changed(&|other| other.max_fee = NanoAria::new(3_000_001)).contains("another max_fee"));
        assert!(changed(&|other| other.audit = AuditMode::None).contains("another audit"));
        assert!(changed(&|other| other.max_tokens = 9).contains("another max_tokens"));
        assert!(changed(&|other| other.choices = 2).contains("another max_tokens"));
        assert!(changed(&|other| other.temperature_ppm += 1).contains("another temperature"));
        assert!(changed(&|other| other.top_p_ppm -= 1).contains("another top_p"));
        assert!(changed(&|other| other.seed = 8).contains("another seed"));
    }
}
