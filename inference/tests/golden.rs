//! Golden digests of logits and hidden states, equal over kernel paths, threads, prefill chunks and batches; closeness to an
//! independent implementation.

#[path = "fixtures/models.rs"]
mod models;

use aria_inference::arith::half::widen;
use aria_inference::engine::Engine;
use aria_inference::forward::{LOGIT_ROWS_MAX, Observe, Row, Wants};
use aria_inference::kernels::KernelKind;
use aria_inference::session::Session;
use models::{aria_tiny, data, engine, mini_silu, mini_silu_ids, paths, reference};

/// BLAKE3 over the bits of the logits of the last positions and of the residual stream at every boundary, for each sequence.
const ARIA_TINY: [&str; 5] = [
    "3bbbb1e1562dfa3a94e8b1ed8aa9bfeecdb5adc481d14ee4dc93637441436786",
    "4b047fed32db6f83965663f0030e5ee4dc678d1aac723fa4b82f53090176ba57",
    "6b0d8bf5523fa6bff695cedc1392aa39cae5620d67d374c5059a1b68e03ff101",
    "86cde88ee3625f3a6e7c3ef095c8f64a56c8392f4a99000eefe8cd468c040632",
    "6fb15607808c77580f58ecff2644b61e1fe40a25b78427990e3ba698c93c10ac",
];
const MINI_SILU: &str = "13802ee8bdf1f9bb619be25a807d5b76b014db9397723642b88517b55f884610";

/// Hidden states of several sequences, `[sequence][boundary]`, positions appended.
struct States<'a> {
    rows: &'a [Row],
    kept: &'a mut Vec<Vec<Vec<f32>>>,
    dim: usize,
}

impl Observe for States<'_> {
    fn boundary(&mut self, boundary: usize, states: &[f32]) {
        for (row, state) in self.rows.iter().zip(states.chunks_exact(self.dim)) {
            let boundaries = &mut self.kept[row.session];
            if boundaries.len() <= boundary {
                boundaries.resize(boundary + 1, Vec::new());
            }
            boundaries[boundary].extend_from_slice(state);
        }
    }
}

/// Runs sequences side by side, `chunk` tokens of each per pass, and digests each.
fn digests(engine: &mut Engine, sequences: &[Vec<u32>], chunk: usize) -> Vec<String> {
    let dim = engine.model().hyper.dim;
    let mut sessions: Vec<Session> = sequences.iter().map(|sequence| engine.session(sequence.len(), None)).collect();
    let mut states = vec![Vec::new(); sequences.len()];
    let mut logits = vec![Vec::new(); sequences.len()];
    let mut next = 0;
    while sequences.iter().any(|sequence| next < sequence.len()) {
        let mut rows = Vec::new();
        for (session, sequence) in sequences.iter().enumerate() {
            // Passes hold a bounded number of logits; the last positions of every sequence fit whatever the chunk.
            let first_wanted = sequence.len().saturating_sub(LOGIT_ROWS_MAX / sequences.len());
            for (position, &token) in sequence.iter().enumerate().skip(next).take(chunk) {
                let wants = if position >= first_wanted { Wants::ALL } else { Wants::NOTHING };
                rows.push(Row { session, token, position, wants });
            }
        }
        next += chunk;
        engine.forward_observed(&mut sessions, &rows, &mut States { rows: &rows, kept: &mut states, dim });
        assert_eq!(engine.first_fault(&rows, 0..rows.len()), None);
        for (index, row) in rows.iter().filter(|row| row.wants.any()).enumerate() {
            logits[row.session].extend_from_slice(engine.logits(index));
        }
    }
    let mut digests = Vec::new();
    for (boundaries, logits) in states.iter().zip(&logits) {
        let mut hasher = blake3::Hasher::new();
        for value in boundaries.iter().flatten().chain(logits) {
            hasher.update(&value.to_bits().to_le_bytes());
        }
        digests.push(hasher.finalize().to_hex().to_string());
    }
    digests
}

#[test]
fn one_digest_for_every_path_thread_count_and_chunk() {
    let (tiny, mini) = (aria_tiny(), mini_silu());
    let sequences: Vec<Vec<u32>> = reference().iter().map(models::Case::sequence).collect();
    for kind in paths() {
        for (threads, only) in [(1, 512), (2, 7), (4, 1)] {
            // Software fma is slow: the scalar path meets each thread count and each chunk once, the others all pairs.
            let chunks = [1, 7, 512].into_iter().filter(|&chunk| kind != KernelKind::Scalar || chunk == only);
            let mut engine = engine(&tiny, Some(kind), threads);
            for chunk in chunks.clone() {
                let got: Vec<String> =
                    sequences.iter().flat_map(|s| digests(&mut engine, std::slice::from_ref(s), chunk)).collect();
                assert_eq!(got, ARIA_TINY, "aria-tiny on {kind}, {threads} threads, chunks of {chunk}");
            }
            let mut engine = self::engine(&mini, Some(kind), threads);
            for chunk in chunks {
                let got = digests(&mut engine, &[mini_silu_ids()], chunk);
                assert_eq!(got, [MINI_SILU], "mini-silu on {kind}, {threads} threads, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn a_batch_changes_nothing() {
    let tiny = aria_tiny();
    let sequences: Vec<Vec<u32>> = reference().iter().map(models::Case::sequence).collect();
    let mut engine = engine(&tiny, None, 2);
    let alone: Vec<String> = {
        // With five sequences in a pass each has fewer logits; compare with the same number.
        let five = |sequence: &Vec<u32>| vec![sequence.clone(); 5];
        sequences.iter().map(|sequence| digests(&mut engine, &five(sequence), 512 / 5).remove(0)).collect()
    };
    for chunk in [1, 3, 64] {
        assert_eq!(digests(&mut engine, &sequences, chunk), alone, "five sequences, {chunk} tokens of each per pass");
    }
}

#[test]
fn a_fork_continues_like_the_original() {
    let tiny = aria_tiny();
    let mut engine = engine(&tiny, None, 2);
    let sequence = reference()[3].sequence();
    let (head, tail) = sequence.split_at(20);
    let mut session = engine.session(sequence.len(), Some([1; 32]));
    engine.feed(&mut session, head, Wants::ALL).expect("finite");
    let mut fork = session.fork();
    let roots = |session: &Session| session.transcript().map(aria_inference::transcript::Transcript::boundary_roots);
    engine.feed(&mut session, tail, Wants::ALL).expect("finite");
    let expected: Vec<u32> = engine.logits(0).iter().map(|l| l.to_bits()).collect();
    // Another tail in between must leave no trace.
    let mut other = fork.fork();
    engine.feed(&mut other, &[5, 6, 7], Wants::ALL).expect("finite");
    for token in tail {
        engine.feed(&mut fork, &[*token], Wants::ALL).expect("finite");
    }
    let got: Vec<u32> = engine.logits(0).iter().map(|l| l.to_bits()).collect();
    assert!(got == expected);
    assert_eq!(roots(&fork), roots(&session));
    assert_ne!(roots(&other), roots(&session));
}

/// Softmax in binary64.
fn probabilities(logits: &[f32]) -> Vec<f64> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l - greatest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

fn argmax(logits: &[f32]) -> u32 {
    aria_inference::sampler::argmax(logits)
}

/// Positions, equal argmaxes, and the mean divergence of the reference from us.
fn compare(engine: &mut Engine, sequence: &[u32], reference: &[Vec<f32>]) -> (usize, usize, f64) {
    let mut session = engine.session(sequence.len(), None);
    let (mut equal, mut divergence) = (0, 0.0);
    for (&token, expected) in sequence.iter().zip(reference) {
        engine.feed(&mut session, &[token], Wants::ALL).expect("finite");
        let got = engine.logits(0);
        equal += usize::from(argmax(got) == argmax(expected));
        let (p, q) = (probabilities(expected), probabilities(got));
        divergence += p.iter().zip(&q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    }
    (sequence.len(), equal, divergence)
}

#[test]
fn close_to_the_independent_reference() {
    let tiny = aria_tiny();
    let mut engine = engine(&tiny, None, 2);
    let bytes = std::fs::read(data("aria-tiny-logits.f16")).expect("readable");
    let logits: Vec<f32> =
        bytes.chunks_exact(2).map(|pair| widen(u16::from_le_bytes(pair.try_into().expect("two")))).collect();
    let mut rows = logits.chunks_exact(engine.model().hyper.vocab).map(<[f32]>::to_vec);
    let (mut positions, mut equal, mut divergence) = (0, 0, 0.0);
    for case in reference() {
        let sequence = case.sequence();
        let expected: Vec<Vec<f32>> = rows.by_ref().take(sequence.len()).collect();
        let (n, same, sum) = compare(&mut engine, &sequence, &expected);
        positions += n;
        equal += same;
        divergence += sum;
    }
    assert!(rows.next().is_none(), "every reference row was used");
    let mean = divergence / positions as f64;
    println!("aria-tiny: {equal} of {positions} argmaxes equal, mean divergence {mean:.2e}");
    assert!(equal * 100 >= positions * 99, "{equal} of {positions} argmaxes are the reference's");
    assert!(mean < 1e-3, "mean divergence {mean}");
}

#[test]
fn close_to_the_reference_with_the_other_gate() {
    let mini = mini_silu();
    let mut engine = engine(&mini, None, 1);
    let bytes = std::fs::read(data("mini-silu-logits.f32")).expect("readable");
    let logits: Vec<f32> =
        bytes.chunks_exact(4).map(|quad| f32::from_le_bytes(quad.try_into().expect("four"))).collect();
    let expected: Vec<Vec<f32>> = logits.chunks_exact(engine.model().hyper.vocab).map(<[f32]>::to_vec).collect();
    let (positions, equal, divergence) = compare(&mut engine, &mini_silu_ids(), &expected);
    let mean = divergence / positions as f64;
    println!("mini-silu: {equal} of {positions} argmaxes equal, mean divergence {mean:.2e}");
    assert!(equal * 100 >= positions * 99, "{equal} of {positions} argmaxes are the reference's");
    assert!(mean < 1e-3, "mean divergence {mean}");
}

#[test]
fn greedy_continuations_are_the_reference_s() {
    let tiny = aria_tiny();
    let mut engine = engine(&tiny, None, 2);
    for case in reference() {
        let mut session = engine.session(case.prompt.len() + case.greedy.len(), None);
        engine.feed(&mut session, &case.prompt, Wants::ALL).expect("finite");
        let mut drawn = Vec::new();
        for _ in &case.greedy {
            let token = argmax(engine.logits(0));
            drawn.push(token);
            engine.feed(&mut session, &[token], Wants::ALL).expect("finite");
        }
        assert_eq!(drawn, case.greedy, "{:?}", case.text);
    }
}
