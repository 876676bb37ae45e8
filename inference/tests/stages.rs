//! An answer by several engines, each with some layers, is the answer of one, to the bit.

#[path = "fixtures/models.rs"]
mod models;
#[path = "fixtures/requests.rs"]
mod requests;

use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use aria_inference::backend::Backend;
use aria_inference::backend::builtin::Builtin;
use aria_inference::engine::EngineOptions;
use aria_inference::generation::{FinishReason, GenerationRequest};
use aria_inference::stage::{
    Drawn, StageEnd, StageError, StageId, StageInput, StageJob, StageOutput, StagePlan, StageSink,
};
use aria_inference::transcript::{choice_root, leaf_key, request_root, text_hash};
use models::{aria_tiny, paths, reference};
use requests::{builtin, greedy, options, outcome, run, sampled};

/// Hands a stage a job and waits for what comes of it.
fn wait(backend: &Builtin, job: impl FnOnce(StageSink) -> StageJob) -> Result<StageOutput, StageError> {
    let (sender, outputs) = mpsc::channel();
    let sink = Box::new(move |output| sender.send(output).expect("the test waits"));
    backend.stage(job(sink)).expect("accepted");
    outputs.recv_timeout(Duration::from_secs(60)).expect("every job ends")
}

/// A stage that ends when the test is done with it.
struct Part<'a>(&'a Builtin, StageId);

impl<'a> Part<'a> {
    fn open(backend: &'a Builtin, layers: Range<usize>, request: &GenerationRequest, draws: bool) -> Part<'a> {
        let id = StageId::next();
        let draws = draws.then(|| (Box::new(request.clone()), 0));
        let plan = StagePlan { layers, positions: request.positions(), leaf_key: leaf_key(&request.salt), draws };
        assert_eq!(wait(backend, |reply| StageJob::Open { id, plan, reply }), Ok(StageOutput::Open));
        Part(backend, id)
    }

    fn run(&self, input: StageInput) -> Result<StageOutput, StageError> {
        wait(self.0, |reply| StageJob::Run { id: self.1, input, reply })
    }

    fn states(&self, input: StageInput) -> Vec<f32> {
        match self.run(input) {
            Ok(StageOutput::States(states)) => states,
            other => panic!("not states: {other:?}"),
        }
    }

    fn close(self) -> StageEnd {
        match wait(self.0, |reply| StageJob::Close { id: self.1, reply }) {
            Ok(StageOutput::Closed(end)) => end,
            other => panic!("not an end: {other:?}"),
        }
    }
}

/// Tokens of an answer whose layers are cut at these places, and the root of its transcript.
fn answer(backends: &[Builtin], cuts: &[usize], request: &GenerationRequest, chunk: usize) -> (Vec<u32>, [u8; 32]) {
    let info = backends[0].model();
    let layers = info.hyper.layers;
    let bounds = [&[0], cuts, &[layers]].concat();
    let parts = bounds.windows(2).enumerate();
    let parts: Vec<Part> =
        parts.map(|(at, cut)| Part::open(&backends[at % backends.len()], cut[0]..cut[1], request, false)).collect();
    let head = Part::open(&backends[0], layers..layers, request, true);
    let step = |tokens: &[u32]| -> Option<Drawn> {
        let first = StageInput::Tokens(tokens.to_vec());
        let input = parts.iter().fold(first, |input, part| StageInput::States(part.states(input)));
        match head.run(input) {
            Ok(StageOutput::Drawn(drawn)) => drawn,
            other => panic!("not a draw: {other:?}"),
        }
    };
    let mut drawn = None;
    for tokens in request.prompt.chunks(chunk) {
        assert!(drawn.is_none(), "nothing is drawn before the prompt ends");
        drawn = step(tokens);
    }
    let mut tokens = Vec::new();
    let finish: FinishReason = loop {
        let Drawn { token, finish, .. } = drawn.expect("a token behind the prompt");
        tokens.push(token);
        if let Some((finish, _)) = finish {
            break finish;
        }
        drawn = step(&[token]);
    };
    let ends: Vec<StageEnd> = parts.into_iter().chain([head]).map(Part::close).collect();
    let fed = request.prompt.len() + tokens.len() - 1;
    assert!(ends.iter().all(|end| end.positions == fed));
    // Both sides of each hand-over have the same root.
    assert!(ends.windows(2).all(|pair| pair[0].roots.last() == pair[1].roots.first()));
    let mut roots = vec![ends[0].roots[0]];
    ends.iter().for_each(|end| roots.extend(&end.roots[1..]));
    let text = text_hash(&request.salt, &request.prompt, &tokens, finish);
    (tokens, request_root(&[choice_root(&info.digest, &roots, &text)]))
}

#[test]
fn where_a_model_is_cut_changes_nothing() {
    let tiny = aria_tiny();
    let all = paths();
    let on = |at: usize| builtin(&tiny, &EngineOptions { kernel: Some(all[at % all.len()]), ..options(1 + at % 2) });
    let backends: Vec<Builtin> = (0..3).map(on).collect();
    let layers = backends[0].model().hyper.layers;
    let requests = [
        greedy(&reference()[0].prompt, 48),
        GenerationRequest { stop: vec!["help".to_owned()], ..sampled(&reference()[3].prompt, 30, 1) },
        sampled(&reference()[4].prompt, 40, 7),
    ];
    for request in &requests {
        let events = run(&backends[0], request.clone());
        let whole = outcome(&events);
        let expected = (whole.choices[0].tokens.clone(), whole.transcript_root);
        let middle: Vec<usize> = (1..layers).collect();
        for cuts in [&[][..], &[1], &[layers / 2], &[1, layers - 1], &middle] {
            for chunk in [3, 512] {
                assert_eq!(answer(&backends, cuts, request, chunk), expected, "cut at {cuts:?}, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn answers_of_others_do_not_disturb() {
    let backends = [builtin(&aria_tiny(), &options(2))];
    let requests: Vec<GenerationRequest> = (0..6).map(|seed| sampled(&reference()[3].prompt, 30, seed)).collect();
    let alone: Vec<_> = requests.iter().map(|request| answer(&backends, &[2, 4], request, 512)).collect();
    std::thread::scope(|scope| {
        let answers: Vec<_> =
            requests.iter().map(|request| scope.spawn(|| answer(&backends, &[2, 4], request, 7))).collect();
        let answers = answers.into_iter().map(|answer| answer.join().expect("an answer"));
        assert_eq!(answers.collect::<Vec<_>>(), alone);
    });
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let backend = builtin(&aria_tiny(), &EngineOptions { sessions_max: 1, ..options(1) });
    let (layers, dim) = (backend.model().hyper.layers, backend.model().hyper.dim);
    let request = greedy(&[5, 6, 7], 4);
    let open = |layers: Range<usize>, positions| {
        let plan = StagePlan { layers, positions, leaf_key: [0; 32], draws: None };
        wait(&backend, |reply| StageJob::Open { id: StageId::next(), plan, reply })
    };
    for (range, positions) in [(0..0, 4), (0..layers + 1, 4), (layers..layers, 4), (0..1, 0), (0..1, 1 << 20)] {
        assert!(matches!(open(range.clone(), positions), Err(StageError::Plan { .. })), "{range:?}, {positions}");
    }
    let first = Part::open(&backend, 0..2, &request, false);
    let second = Part::open(&backend, 2..layers, &request, false);
    let more = [Part::open(&backend, 0..1, &request, false), Part::open(&backend, 0..1, &request, false)];
    assert_eq!(open(0..1, 4), Err(StageError::Busy { open: 4 }));
    more.map(Part::close).iter().for_each(|end| assert_eq!(end.positions, 0));
    let inputs = [
        StageInput::States(vec![0.0; dim]),
        StageInput::Tokens(Vec::new()),
        StageInput::Tokens(vec![u32::MAX]),
        StageInput::Tokens(vec![1; 7]),
    ];
    for input in inputs {
        assert!(matches!(first.run(input), Err(StageError::Input(_))));
    }
    for input in [StageInput::Tokens(vec![1]), StageInput::States(vec![0.0; dim + 1]), StageInput::States(Vec::new())] {
        assert!(matches!(second.run(input), Err(StageError::Input(_))));
    }
    assert!(matches!(second.run(StageInput::States(vec![f32::NAN; dim])), Err(StageError::Engine(_))));
    second.close();
    let memory =
        EngineOptions { kv_bytes_max: 8 * backend.model().kv_shape().bytes_per_position() as u64, ..options(1) };
    let small = builtin(&aria_tiny(), &memory);
    let half = |positions| {
        let plan = StagePlan { layers: 0..layers / 2, positions, leaf_key: [0; 32], draws: None };
        wait(&small, |reply| StageJob::Open { id: StageId::next(), plan, reply })
    };
    assert_eq!(
        [half(8), half(8)],
        [Ok(StageOutput::Open), Ok(StageOutput::Open)],
        "half of the layers, half of the memory"
    );
    assert_eq!(half(1), Err(StageError::Busy { open: 2 }));
    let gone = StageId::next();
    assert_eq!(wait(&backend, |reply| StageJob::Close { id: gone, reply }), Err(StageError::Unknown));
    let input = StageInput::Tokens(vec![1]);
    assert_eq!(wait(&backend, |reply| StageJob::Run { id: gone, input, reply }), Err(StageError::Unknown));
    // What was refused left no trace: the first stage still has all of its room.
    assert_eq!(first.states(StageInput::Tokens(vec![5, 6, 7])).len(), 3 * dim);
}
