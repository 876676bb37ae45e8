//! No honest record is ever refuted: random answers of the built-in model, through everything that lies between their provider and an
//! auditor of another make. `ARIA_AUDITS=10000` runs as many.

use std::path::Path;
use std::time::{Duration, Instant};

use aria_chain::attestation::Verdict;
use aria_chain::codec::Versioned;
use aria_chain::ids::{ChainId, Digest, ModelId};
use aria_chain::keys::NodeKey;
use aria_chain::record::Stage;
use aria_chain::request::{AuditMode, TaskType};
use aria_chain::units::{Height, NanoAria, Timestamp};
use aria_inference::backend::{Backend, CancelToken};
use aria_inference::engine::EngineOptions;
use aria_inference::generation::{Event, GenerationRequest, Outcome};
use aria_inference::sampler::Sampling;
use aria_node::audit::judge::run_again;
use aria_node::audit::payload::{Payload, Shown};
use aria_node::cli::BackendChoice;
use aria_node::model::{EMBEDDED_NAME, locate};
use aria_node::services::gateway::{Secrets, Terms, admit, bias_ppm, record, request, settle, transcript_salt};

/// How many in an ordinary run.
const AUDITS: u32 = 150;

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(limit)).expect("below a number of 32 bits")
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn part(&mut self) -> f32 {
        self.below(1_000_001) as f32 / 1_000_000.0
    }

    fn request(&mut self, secrets: &Secrets) -> GenerationRequest {
        let sampling = Sampling {
            temperature: if self.below(4) == 0 { 0.0 } else { 2.0 * self.part() },
            top_p: self.part().max(0.01),
            top_k: self.below(80),
            min_p: 0.2 * self.part(),
            repetition_penalty: 0.8 + self.part(),
            presence_penalty: self.part() - 0.5,
            frequency_penalty: self.part() - 0.5,
            logit_bias: (0..self.below(4))
                .map(|place| (100 * place + self.below(100), 10.0 * self.part() - 5.0))
                .collect(),
            seed: u64::from(self.below(u32::MAX)),
        };
        let stops = ["e", " the", ".", "block"];
        GenerationRequest {
            prompt: (0..=self.below(60)).map(|_| 300 + self.below(3_700)).collect(),
            choices: 1 + self.below(3),
            max_tokens: 1 + self.below(40),
            stop: stops.into_iter().filter(|_| self.below(5) == 0).map(str::to_owned).collect(),
            sampling: settle(sampling),
            logprobs: None,
            salt: transcript_salt(&secrets.output),
        }
    }
}

fn answer(backend: &dyn Backend, request: &GenerationRequest) -> Outcome {
    let (told, events) = std::sync::mpsc::channel();
    let sink = Box::new(move |event| drop(told.send(event)));
    backend.submit(request.clone(), CancelToken::new(), sink).expect("it is free");
    loop {
        match events.recv().expect("each request ends") {
            Event::Done(outcome) => return *outcome,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn no_honest_record_is_refuted_and_no_false_one_passes() {
    let count = std::env::var("ARIA_AUDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(AUDITS);
    let model = locate(EMBEDDED_NAME, Path::new("/nonexistent")).expect("built in");
    let start = |threads| {
        let options = EngineOptions { threads, ..EngineOptions::default() };
        model.start(BackendChoice::Builtin, &options).expect("the model loads")
    };
    let (provider, auditor) = (start(2), start(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (key, chain) = (NodeKey::from_seed(&[1; 32]), "aria-test".parse::<ChainId>().expect("a name"));
    let model_id = ModelId::new(provider.model().digest.0);
    let (mut dice, mut generating, mut auditing) = (Dice(7), Duration::ZERO, Duration::ZERO);
    for number in 0..count {
        let secrets = Secrets::draw().expect("randomness");
        let asked = dice.request(&secrets);
        let terms = Terms { audit: AuditMode::Committee, task: TaskType::TextGeneration, max_fee: NanoAria::ZERO };
        let wanted = request(key.node_id(), (&chain, model_id), Height::new(5), (&asked, terms), &secrets);
        let admitted = admit(&key, wanted, secrets);
        let begun = Instant::now();
        let outcome = answer(&*provider, &asked);
        generating += begun.elapsed();
        let layers = u16::try_from(provider.model().hyper.layers).expect("few");
        let stages = vec![Stage { node_id: key.node_id(), layer_start: 0, layer_end: layers }];
        let record = record(&admitted, &outcome, (provider.kind(), stages), Timestamp::new(9));
        let signature = key.sign_stage(&admitted.request.chain_id, &record.id(), 0);
        let proof = admitted.answered(record, vec![signature]).received(&key).expect("sound");
        let payload = Payload::new(&asked, &outcome.choices, bias_ppm(&asked.sampling), &secrets);

        let came = Payload::decode(&payload.encode()).expect("its own bytes");
        let Shown::Claims(claim, roots) = came.claim(proof.request(), proof.record(), [3; 32]) else {
            panic!("it fits")
        };
        assert_eq!(roots.len(), outcome.choices.len(), "{number}: what its root is made of is told");
        let begun = Instant::now();
        let (verdict, root) = runtime.block_on(run_again(&*auditor, *claim.clone())).expect("it can tell");
        auditing += begun.elapsed();
        assert_eq!(verdict, Verdict::Valid, "{number}: {asked:?}");
        assert_ne!(root, Digest::ZERO);

        // The same with one token changed.
        let mut lie = *claim;
        let choice = dice.below(u32::try_from(lie.choices.len()).expect("few")) as usize;
        let at = dice.below(u32::try_from(lie.choices[choice].tokens.len()).expect("few")) as usize;
        let token = &mut lie.choices[choice].tokens[at];
        *token = (*token + 1 + dice.below(4_000)) % 4_096;
        let (verdict, _) = runtime.block_on(run_again(&*auditor, lie)).expect("it can tell");
        assert_eq!(verdict, Verdict::Invalid, "{number}: {asked:?}");
    }
    println!("{count} answers in {generating:?}, their audits in {auditing:?}, on half of the threads");
}
