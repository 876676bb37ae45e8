//! What an auditor needs and the chain does not show: the token ids of prompt and answer, the options, and the salts of the
//! commitments to them.
//!
//! Everything in it is bound by the record and the request that it belongs to, so a provider cannot tell two auditors two
//! stories: what does not fit the commitments was not delivered. Of how the answer ended, and of the roots of its transcript's
//! boundaries, whatever the record's root does not bind is as if it was not told.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use aria_chain::codec::{Versioned, read_list};
use aria_chain::hash::{Salt, commit_logit_bias, commit_output, commit_prompt, commit_stop};
use aria_chain::ids::RecordId;
use aria_chain::limits::CHOICES_MAX;
use aria_chain::record::InferenceRecord;
use aria_chain::request::InferenceRequest;
use aria_chain::store::StoreError;
use aria_inference::digest::ModelDigest;
use aria_inference::generation::{ChoiceOutcome, FinishReason, GenerationRequest};
use aria_inference::sampler::Sampling;
use aria_inference::transcript::Hash;
use aria_inference::verify::{Claim, ClaimedChoice};
use borsh::io::{Error, Read};
use borsh::{BorshDeserialize, BorshSerialize};

use crate::services::gateway::{Secrets, from_ppm, transcript_salt};

/// Longest payload: half a million tokens.
pub const PAYLOAD_BYTES_MAX: usize = 2 * 1_024 * 1_024;
/// Most boundaries of a transcript: four times those of the deepest models there are.
const BOUNDARIES_MAX: usize = 512;

/// What lies behind a record.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Payload {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Token ids of each choice.
    pub outputs: Vec<Vec<u32>>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Bias of tokens, in parts per million, by token.
    pub bias_ppm: Vec<(u32, i64)>,
    /// Salt of the prompt's commitment.
    pub prompt_salt: Salt,
    /// Salt of the output's commitment; that of the transcript follows from it.
    pub output_salt: Salt,
    /// Salt of the commitments to options.
    pub options_salt: Salt,
    /// How each choice ended, or nothing.
    #[borsh(deserialize_with = "ends")]
    pub ends: Vec<End>,
}

/// How a choice ended, and what its part of the record's root is made of.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct End {
    /// Whether it was cut at the most tokens that were asked for; else it came to its own end.
    pub is_cut: bool,
    /// Roots of the boundaries of its transcript.
    #[borsh(deserialize_with = "boundaries")]
    pub boundary_roots: Vec<Hash>,
}

fn ends<R: Read>(reader: &mut R) -> Result<Vec<End>, Error> {
    read_list(reader, CHOICES_MAX.into(), "ends")
}

fn boundaries<R: Read>(reader: &mut R) -> Result<Vec<Hash>, Error> {
    read_list(reader, BOUNDARIES_MAX, "boundaries")
}

impl End {
    fn of(choice: &ChoiceOutcome) -> End {
        End { is_cut: choice.finish == FinishReason::Length, boundary_roots: choice.boundary_roots.clone() }
    }

    fn finish(&self) -> FinishReason {
        if self.is_cut { FinishReason::Length } else { FinishReason::Stop }
    }
}

/// The roots of the boundaries of each choice's transcript, which the record's root binds; none where they were not told.
pub type BoundaryRoots = Vec<Vec<Hash>>;

impl Versioned for Payload {
    const NAME: &'static str = "payload";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
}

/// What a payload shows about its record, before anything is computed.
#[derive(Debug)]
pub enum Shown {
    /// It is not what the record commits to: nothing was delivered.
    Foreign,
    /// It is, and the record counts its tokens wrongly.
    Miscounted,
    /// It is. This is what the record claims, and what its root is made of.
    Claims(Box<Claim>, BoundaryRoots),
}

impl Payload {
    /// Of an answer that this node gave.
    pub fn new(
        request: &GenerationRequest,
        choices: &[ChoiceOutcome],
        bias_ppm: Vec<(u32, i64)>,
        secrets: &Secrets,
    ) -> Payload {
        Payload {
            prompt: request.prompt.clone(),
            outputs: choices.iter().map(|choice| choice.tokens.clone()).collect(),
            ends: choices.iter().map(End::of).collect(),
            stop: request.stop.clone(),
            bias_ppm,
            prompt_salt: secrets.prompt,
            output_salt: secrets.output,
            options_salt: secrets.options,
        }
    }

    /// The same, as short as an audit can do with.
    pub fn without_ends(self) -> Payload {
        Payload { ends: Vec::new(), ..self }
    }

    /// Whether it is what request and record commit to.
    pub fn belongs_to(&self, request: &InferenceRequest, record: &InferenceRecord) -> bool {
        commit_prompt(&self.prompt_salt, &self.prompt) == request.prompt_commitment
            && commit_output(&self.output_salt, &self.outputs) == record.output_hash
            && commit_stop(&self.options_salt, &self.stop) == request.stop_commitment
            && commit_logit_bias(&self.options_salt, &self.bias_ppm) == request.logit_bias_commitment
    }

    /// Compares it with what was signed. `secret` is the auditor's own.
    pub fn claim(self, request: &InferenceRequest, record: &InferenceRecord, secret: [u8; 32]) -> Shown {
        if !self.belongs_to(request, record) {
            return Shown::Foreign;
        }
        let generated: usize = self.outputs.iter().map(Vec::len).sum();
        let counts = (u32::try_from(self.prompt.len()), u32::try_from(generated));
        if counts != (Ok(record.prompt_tokens), Ok(record.tokens_generated)) {
            return Shown::Miscounted;
        }
        let sampling = Sampling {
            temperature: from_ppm(request.temperature_ppm.into()),
            top_p: from_ppm(request.top_p_ppm.into()),
            top_k: request.top_k,
            min_p: from_ppm(request.min_p_ppm.into()),
            repetition_penalty: from_ppm(request.repetition_penalty_ppm.into()),
            presence_penalty: from_ppm(request.presence_penalty_ppm.into()),
            frequency_penalty: from_ppm(request.frequency_penalty_ppm.into()),
            logit_bias: self.bias_ppm.iter().map(|(token, bias)| (*token, from_ppm(*bias))).collect(),
            seed: request.seed,
        };
        // Where a choice mostly ends. What is not told, or not bound by the root, follows from the run.
        let guessed = |tokens: &Vec<u32>| {
            let is_full = u32::try_from(tokens.len()) == Ok(request.max_tokens);
            if is_full { FinishReason::Length } else { FinishReason::Stop }
        };
        let choices: Vec<ClaimedChoice> =
            self.outputs.into_iter().map(|tokens| ClaimedChoice { finish: guessed(&tokens), tokens }).collect();
        let mut claim = Claim {
            choices,
            request: GenerationRequest {
                prompt: self.prompt,
                choices: request.choices.into(),
                max_tokens: request.max_tokens,
                stop: self.stop,
                sampling,
                logprobs: None,
                salt: transcript_salt(&self.output_salt),
            },
            transcript_root: *record.transcript_root.as_bytes(),
            secret: Some(secret),
        };
        let roots = bind(&mut claim, &ModelDigest(*record.model_id.as_bytes()), self.ends);
        Shown::Claims(Box::new(claim), roots)
    }
}

/// Lets the choices of a claim end as is told, if its root binds that. Returns the roots of boundaries that it binds then.
fn bind(claim: &mut Claim, model: &ModelDigest, ends: Vec<End>) -> BoundaryRoots {
    if ends.len() != claim.choices.len() {
        return BoundaryRoots::new();
    }
    let guessed: Vec<FinishReason> = claim.choices.iter().map(|choice| choice.finish).collect();
    let finish = |claim: &mut Claim, all: Vec<FinishReason>| {
        claim.choices.iter_mut().zip(all).for_each(|(choice, finish)| choice.finish = finish);
    };
    finish(claim, ends.iter().map(End::finish).collect());
    let roots: BoundaryRoots = ends.into_iter().map(|end| end.boundary_roots).collect();
    if claim.binds(model, &roots) {
        return roots;
    }
    finish(claim, guessed);
    BoundaryRoots::new()
}

/// Most bytes of other nodes' payloads that are kept.
const BORROWED_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Payloads of this node's own records, a file each, readable by their owner alone; and in memory those of records that it
/// audits, for the rest of the committee: a provider that picks whom it answers gains nothing.
#[derive(Debug)]
pub struct Payloads {
    folder: PathBuf,
    borrowed: Mutex<HashMap<RecordId, Vec<u8>>>,
}

impl Payloads {
    /// In a folder, which is made when the first is kept.
    pub fn new(folder: PathBuf) -> Payloads {
        Payloads { folder, borrowed: Mutex::default() }
    }

    fn file(&self, record: &RecordId) -> PathBuf {
        self.folder.join(record.to_string())
    }

    fn borrowed(&self) -> MutexGuard<'_, HashMap<RecordId, Vec<u8>>> {
        self.borrowed.lock().expect("no section that holds this lock panics")
    }

    /// Keeps what another node delivered, while there is room.
    pub fn borrow(&self, record: RecordId, payload: Vec<u8>) {
        let mut borrowed = self.borrowed();
        let kept: usize = borrowed.values().map(Vec::len).sum();
        if kept + payload.len() <= BORROWED_BYTES_MAX {
            borrowed.insert(record, payload);
        }
    }

    /// Keeps one, whole or not at all. It is on the disk then: without it an audit would find its provider unavailable.
    pub fn keep(&self, record: &RecordId, payload: &Payload) -> io::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let (path, draft) = (self.file(record), self.folder.join(format!("{record}.new")));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&payload.encode())?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// The bytes of one, if it is here.
    pub fn read(&self, record: &RecordId) -> Option<Vec<u8>> {
        let borrowed = self.borrowed().get(record).cloned();
        borrowed.or_else(|| fs::read(self.file(record)).ok())
    }

    /// Forgets one whose audit ended, if it is here.
    pub fn forget(&self, record: &RecordId) {
        self.borrowed().remove(record);
        // One that is not there needs no forgetting, and one that cannot be removed is only in the way.
        let _ = fs::remove_file(self.file(record));
    }

    /// Forgets all but those that are wanted. What an interrupted run left half written goes too.
    pub fn retain(&self, mut is_wanted: impl FnMut(&RecordId) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let borrowed: Vec<RecordId> = self.borrowed().keys().copied().collect();
        for record in borrowed {
            if !is_wanted(&record)? {
                self.borrowed().remove(&record);
            }
        }
        // No folder, no payloads of its own.
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let record = entry.file_name().to_str().and_then(|name| name.parse::<RecordId>().ok());
            if !record.map_or(Ok(false), |record| is_wanted(&record))? {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aria_chain::ids::{ChainId, ModelId};
    use aria_chain::keys::NodeKey;
    use aria_chain::record::{BackendClass, EnergySource, Stage};
    use aria_chain::request::{AuditMode, TaskType};
    use aria_chain::units::{Height, Microjoules, Millis, NanoAria, Timestamp};
    use aria_inference::transcript::{choice_root, request_root, text_hash};

    use super::*;
    use crate::services::gateway::{Terms, bias_ppm, request};

    fn asked() -> GenerationRequest {
        let sampling =
            Sampling { temperature: 0.7, logit_bias: vec![(9, -1.5), (3, 2.0)], seed: 11, ..Sampling::default() };
        GenerationRequest {
            prompt: vec![1, 2, 3],
            choices: 2,
            max_tokens: 4,
            stop: vec!["x".into()],
            sampling,
            logprobs: None,
            salt: [0; 32],
        }
    }

    /// Both end by themselves; of the first one would think that it was cut.
    fn choices() -> [ChoiceOutcome; 2] {
        let choice = |tokens: &[u32], finish, root| ChoiceOutcome {
            tokens: tokens.to_vec(),
            text: String::new(),
            finish,
            boundary_roots: vec![[root; 32]; 8],
        };
        [choice(&[5, 6, 7, 8], FinishReason::Stop, 1), choice(&[9], FinishReason::Stop, 2)]
    }

    /// What a record of these choices carries.
    fn root(asked: &GenerationRequest, choices: &[ChoiceOutcome], secrets: &Secrets) -> Hash {
        let roots = choices.iter().map(|choice| {
            let salt = transcript_salt(&secrets.output);
            let text = text_hash(&salt, &asked.prompt, &choice.tokens, choice.finish);
            choice_root(&ModelDigest([2; 32]), &choice.boundary_roots, &text)
        });
        request_root(&roots.collect::<Vec<Hash>>())
    }

    fn answered() -> (InferenceRequest, InferenceRecord, Payload) {
        let (key, chain) = (NodeKey::from_seed(&[1; 32]), "aria-test".parse::<ChainId>().expect("a name"));
        let (asked, secrets) = (asked(), Secrets::draw().expect("randomness"));
        let terms = Terms { audit: AuditMode::Committee, task: TaskType::Any, max_fee: NanoAria::ZERO };
        let here = (&chain, ModelId::new([2; 32]));
        let request = request(key.node_id(), here, Height::new(5), (&asked, terms), &secrets);
        let choices = choices();
        let outputs: Vec<Vec<u32>> = choices.iter().map(|choice| choice.tokens.clone()).collect();
        let record = InferenceRecord {
            request_id: request.id(),
            query_hash: request.prompt_commitment,
            output_hash: commit_output(&secrets.output, &outputs),
            model_id: request.model_id,
            stages: vec![Stage { node_id: key.node_id(), layer_start: 0, layer_end: 6 }],
            energy_uj: Microjoules::new(1),
            energy_source: EnergySource::Estimated,
            latency_ms: Millis::new(1),
            first_token_ms: Millis::new(1),
            prompt_tokens: 3,
            tokens_generated: 5,
            timestamp_ms: Timestamp::new(1),
            backend: BackendClass::Canonical,
            transcript_root: aria_chain::ids::Digest::new(root(&asked, &choices, &secrets)),
        };
        let payload = Payload::new(&asked, &choices, bias_ppm(&asked.sampling), &secrets);
        (request, record, payload)
    }

    #[test]
    fn it_claims_exactly_what_was_signed() {
        let (request, record, payload) = answered();
        let bytes = payload.encode();
        let again = Payload::decode(&bytes).expect("its own bytes");
        let Shown::Claims(claim, roots) = again.claim(&request, &record, [5; 32]) else { panic!("it fits") };
        assert_eq!(claim.request.sampling.logit_bias, [(3, 2.0), (9, -1.5)]);
        assert_eq!((claim.request.prompt.len(), claim.request.max_tokens, claim.secret), (3, 4, Some([5; 32])));
        let ends: Vec<FinishReason> = claim.choices.iter().map(|choice| choice.finish).collect();
        assert_eq!(ends, [FinishReason::Stop, FinishReason::Stop]);
        assert_eq!(claim.request.salt, transcript_salt(&payload.output_salt));
        assert_eq!(roots, choices().map(|choice| choice.boundary_roots));
    }

    #[test]
    fn what_the_root_does_not_bind_is_as_if_it_was_not_told() {
        let (request, record, payload) = answered();
        let changes: [fn(&mut Payload); 6] = [
            |payload| payload.ends.clear(),
            |payload| drop(payload.ends.pop()),
            |payload| payload.ends.push(payload.ends[0].clone()),
            |payload| payload.ends[1].is_cut = true,
            |payload| payload.ends[0].boundary_roots[3][0] ^= 1,
            |payload| payload.ends[1].boundary_roots.truncate(7),
        ];
        for change in changes {
            let mut other = payload.clone();
            change(&mut other);
            let other = Payload::decode(&other.encode()).expect("its own bytes");
            let Shown::Claims(claim, roots) = other.claim(&request, &record, [5; 32]) else { panic!("it fits") };
            let ends: Vec<FinishReason> = claim.choices.iter().map(|choice| choice.finish).collect();
            assert_eq!((ends, roots.len()), (vec![FinishReason::Length, FinishReason::Stop], 0));
        }
    }

    #[test]
    fn lists_of_a_payload_are_bounded_and_an_older_one_is_refused_by_name() {
        let (.., payload) = answered();
        let refused = |payload: &Payload| Payload::decode(&payload.encode()).expect_err("too many").to_string();
        let many = Payload { ends: vec![payload.ends[0].clone(); usize::from(CHOICES_MAX) + 1], ..payload.clone() };
        assert!(refused(&many).contains("ends has 129 items, at most 128"), "{}", refused(&many));
        let mut deep = payload.clone();
        deep.ends[0].boundary_roots = vec![[0; 32]; BOUNDARIES_MAX + 1];
        assert!(refused(&deep).contains("boundaries has 513 items, at most 512"), "{}", refused(&deep));
        let mut older = payload.encode();
        older[0] = 1;
        assert_eq!(
            Payload::decode(&older),
            Err(aria_chain::error::CodecError::Version { name: "payload", got: 1, known: 2 })
        );
    }

    #[test]
    fn the_longest_options_are_no_longer_than_the_chain_takes_them_to_be() {
        use aria_chain::limits::{CHOICES_MAX, PAYLOAD_OPTIONS_BYTES_MAX};
        use aria_inference::generation::{STOP_BYTES_MAX, STOPS_MAX};
        use aria_inference::sampler::LOGIT_BIAS_MAX;
        let (_, _, payload) = answered();
        let longest = Payload {
            prompt: Vec::new(),
            outputs: vec![Vec::new(); CHOICES_MAX.into()],
            stop: vec!["x".repeat(STOP_BYTES_MAX); STOPS_MAX],
            bias_ppm: vec![(1, -1); LOGIT_BIAS_MAX],
            ..payload.without_ends()
        };
        let rest = longest.encode().len();
        assert!((PAYLOAD_OPTIONS_BYTES_MAX - 64..=PAYLOAD_OPTIONS_BYTES_MAX).contains(&rest), "{rest}");
        let with_tokens = Payload { prompt: vec![7; 10], ..longest };
        assert_eq!(with_tokens.encode().len(), rest + 40, "four bytes for each token");
    }

    #[test]
    fn two_auditors_cannot_be_told_two_stories() {
        let (request, record, payload) = answered();
        let changes: [fn(&mut Payload); 7] = [
            |payload| payload.prompt[0] += 1,
            |payload| payload.outputs[1][0] += 1,
            |payload| payload.stop.clear(),
            |payload| payload.bias_ppm[0].1 += 1,
            |payload| payload.prompt_salt[0] ^= 1,
            |payload| payload.output_salt[0] ^= 1,
            |payload| payload.options_salt[0] ^= 1,
        ];
        for change in changes {
            let mut other = payload.clone();
            change(&mut other);
            assert!(matches!(other.claim(&request, &record, [5; 32]), Shown::Foreign));
        }
        let wrong = InferenceRecord { tokens_generated: 6, ..record };
        assert!(matches!(payload.claim(&request, &wrong, [5; 32]), Shown::Miscounted));
    }

    #[test]
    fn payloads_are_kept_for_their_owner_alone_and_forgotten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let payloads = Payloads::new(folder.path().join("payloads"));
        let (record, (.., payload)) = (RecordId::new([3; 32]), answered());
        assert_eq!(payloads.read(&record), None);
        payloads.keep(&record, &payload).expect("kept");
        assert_eq!(payloads.read(&record), Some(payload.encode()));
        let mode = fs::metadata(payloads.file(&record)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        payloads.forget(&record);
        payloads.forget(&record);
        assert_eq!(payloads.read(&record), None);
    }

    #[test]
    fn what_is_borrowed_is_bounded_and_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let payloads = Payloads::new(folder.path().join("payloads"));
        let id = |n: u8| RecordId::new([n; 32]);
        payloads.borrow(id(1), vec![1; BORROWED_BYTES_MAX - 1]);
        payloads.borrow(id(2), vec![2; 2]);
        assert_eq!(payloads.read(&id(1)).map(|bytes| bytes.len()), Some(BORROWED_BYTES_MAX - 1));
        assert_eq!(payloads.read(&id(2)), None, "there was no room");
        payloads.forget(&id(1));
        payloads.borrow(id(2), vec![2; 2]);
        assert_eq!((payloads.read(&id(1)), payloads.read(&id(2))), (None, Some(vec![2; 2])));
    }

    #[test]
    fn only_what_is_wanted_outlives_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let payloads = Payloads::new(folder.path().join("payloads"));
        payloads.retain(|_| unreachable!("there is none")).expect("no folder yet");
        let (wanted, ended, (.., payload)) = (RecordId::new([3; 32]), RecordId::new([4; 32]), answered());
        payloads.keep(&wanted, &payload).expect("kept");
        payloads.keep(&ended, &payload).expect("kept");
        fs::write(payloads.folder.join(format!("{ended}.new")), b"half").expect("written");
        payloads.retain(|record| Ok(*record == wanted)).expect("readable");
        let left: Vec<_> =
            fs::read_dir(&payloads.folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [wanted.to_string().as_str()]);
    }
}
