//! R12 and R13: from logits to one token, the same on every machine.
//!
//! Order of work: logit bias; repetition, presence and frequency penalty; the `top_k` greatest in the order of R12; division by
//! the temperature; softmax; the cuts `top_p` and `min_p`; one draw. Temperature 0 takes the first of the order instead.

use crate::arith::exp::exp32;
use crate::digest::ModelDigest;

/// Greatest `top_k`; 0 stands for it.
pub const TOP_K_MAX: u32 = 1024;
/// Greatest temperature.
pub const TEMPERATURE_MAX: f32 = 2.0;
/// Entries of a logit bias, OpenAI's limit.
pub const LOGIT_BIAS_MAX: usize = 300;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy, up to [`TEMPERATURE_MAX`].
    pub temperature: f32,
    /// Smallest probability mass kept, in (0, 1].
    pub top_p: f32,
    /// Candidates kept, up to [`TOP_K_MAX`]; 0 means that many.
    pub top_k: u32,
    /// Probability relative to the likeliest below which candidates are cut, in [0, 1].
    pub min_p: f32,
    /// Positive logits of seen tokens are divided by it, negative ones multiplied. In (0, 10]; 1 is off. Prompt counts.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of generated tokens, in [-2, 2].
    pub presence_penalty: f32,
    /// Subtracted for each time a token was generated, in [-2, 2].
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens, in [-100, 100]. Each token at most once.
    pub logit_bias: Vec<(u32, f32)>,
    /// Keys the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 40,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// The likeliest token, always.
    #[must_use]
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }

    /// Checks every parameter against its range.
    pub fn check(&self, vocab: usize) -> Result<(), SamplingError> {
        let range = |field, value: f32, low: f32, high: f32| {
            if value >= low && value <= high { Ok(()) } else { Err(SamplingError::Range { field, value, low, high }) }
        };
        range("temperature", self.temperature, 0.0, TEMPERATURE_MAX)?;
        range("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        range("min_p", self.min_p, 0.0, 1.0)?;
        range("repetition_penalty", self.repetition_penalty, 0.01, 10.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        if self.top_k > TOP_K_MAX {
            return Err(SamplingError::TopK(self.top_k));
        }
        if self.logit_bias.len() > LOGIT_BIAS_MAX {
            return Err(SamplingError::BiasCount(self.logit_bias.len()));
        }
        for (index, &(token, bias)) in self.logit_bias.iter().enumerate() {
            if token as usize >= vocab {
                return Err(SamplingError::BiasToken { token, vocab });
            }
            if self.logit_bias[..index].iter().any(|&(other, _)| other == token) {
                return Err(SamplingError::BiasTwice(token));
            }
            range("logit_bias", bias, -100.0, 100.0)?;
        }
        Ok(())
    }
}

/// A sampling parameter outside of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A number outside of its interval.
    #[error("{field}: must be between {low} and {high}, not {value}")]
    Range {
        /// The parameter.
        field: &'static str,
        /// What it was.
        value: f32,
        /// Least allowed.
        low: f32,
        /// Greatest allowed.
        high: f32,
    },
    /// `top_k` too great.
    #[error("top_k: must be at most {TOP_K_MAX} (0 means that many), not {0}")]
    TopK(u32),
    /// Too many biased tokens.
    #[error("logit_bias: at most {LOGIT_BIAS_MAX} tokens, not {0}")]
    BiasCount(usize),
    /// A biased token outside of the vocabulary.
    #[error("logit_bias: token id {token} is not below the vocabulary size {vocab}")]
    BiasToken {
        /// The id.
        token: u32,
        /// The model's vocabulary size.
        vocab: usize,
    },
    /// A token with two biases.
    #[error("logit_bias: token id {0} appears twice")]
    BiasTwice(u32),
}

impl SamplingError {
    /// The parameter that has to change.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            SamplingError::Range { field, .. } => field,
            SamplingError::TopK(_) => "top_k",
            SamplingError::BiasCount(_) | SamplingError::BiasToken { .. } | SamplingError::BiasTwice(_) => "logit_bias",
        }
    }
}

/// What the draws of a request are bound to: the model and the prompt, nothing that a node could choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawDomain([u8; 32]);

impl DrawDomain {
    /// BLAKE3 over the model's digest and the prompt's token ids.
    #[must_use]
    pub fn new(model: &ModelDigest, prompt: &[u32]) -> DrawDomain {
        let mut hasher = blake3::Hasher::new_derive_key("aria/draw-domain/v1");
        hasher.update(&model.0);
        for token in prompt {
            hasher.update(&token.to_le_bytes());
        }
        DrawDomain(*hasher.finalize().as_bytes())
    }

    /// The 53-bit fraction in [0, 1) for one choice and position under `seed`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit binary64 exactly")]
    pub fn draw(&self, seed: u64, choice: u32, position: u32) -> f64 {
        let key = blake3::derive_key("aria/draw-key/v1", &seed.to_le_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&self.0).update(&choice.to_le_bytes()).update(&position.to_le_bytes());
        let mut word = [0; 8];
        hasher.finalize_xof().fill(&mut word);
        (u64::from_le_bytes(word) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

/// The logits of one row: the greatest in the order of R12, and any other on demand.
pub trait Logits {
    /// At least as many as [`Sampler::needs`] said, or all there are.
    fn greatest(&self) -> &[(u32, f32)];
    /// The logit of one token.
    fn one(&mut self, id: u32) -> f32;
}

/// Draws the tokens of one choice. It remembers what was seen, for the penalties.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    domain: DrawDomain,
    choice: u32,
    /// Tokens whose logits are changed, in order of token.
    adjusted: Vec<Adjusted>,
    /// Candidates in the order of R12; kept to be reused.
    top: Vec<(u32, f32)>,
}

/// A token whose logit is changed before the draw.
#[derive(Clone, Copy, Debug)]
struct Adjusted {
    token: u32,
    bias: Option<f32>,
    is_seen: bool,
    generated: u32,
}

impl Sampler {
    /// A sampler for one choice of a request. The parameters were checked by [`Sampling::check`].
    #[must_use]
    pub fn new(sampling: &Sampling, domain: DrawDomain, choice: u32, prompt: &[u32]) -> Sampler {
        let mut sampler = Sampler {
            sampling: sampling.clone(),
            domain,
            choice,
            adjusted: Vec::new(),
            top: Vec::with_capacity(kept(sampling) + 1),
        };
        for &(token, bias) in &sampling.logit_bias {
            sampler.entry(token).bias = Some(bias);
        }
        if sampler.has_penalties() {
            for &token in prompt {
                sampler.entry(token).is_seen = true;
            }
        }
        sampler
    }

    /// How many of the greatest logits the next draw needs: those that are kept, and as many more as may fall behind them.
    #[must_use]
    pub fn needs(&self) -> usize {
        kept(&self.sampling) + self.adjusted.len()
    }

    /// The same after `draws` more draws, each of which may change the logit of one more token.
    #[must_use]
    pub fn needs_after(&self, draws: usize) -> usize {
        self.needs() + if self.has_penalties() { draws } else { 0 }
    }

    /// The token for `position`.
    pub fn next(&mut self, logits: &mut impl Logits, position: u32) -> u32 {
        let keep = kept(&self.sampling);
        self.top.clear();
        let adjusted = &self.adjusted;
        let is_untouched = |token| adjusted.binary_search_by_key(&token, |entry: &Adjusted| entry.token).is_err();
        self.top.extend(logits.greatest().iter().filter(|entry| is_untouched(entry.0)).take(keep));
        for index in 0..self.adjusted.len() {
            let adjusted = self.adjusted[index];
            let entry = (adjusted.token, self.adjust(&adjusted, logits.one(adjusted.token)));
            let at = self.top.partition_point(|&other| before(other, entry));
            self.top.insert(at, entry);
            self.top.truncate(keep);
        }
        let token = if self.sampling.temperature == 0.0 {
            self.top[0].0
        } else {
            let u = self.domain.draw(self.sampling.seed, self.choice, position);
            pick(&mut self.top, &self.sampling, u)
        };
        if self.has_penalties() {
            let entry = self.entry(token);
            entry.is_seen = true;
            entry.generated += 1;
        }
        token
    }

    fn has_penalties(&self) -> bool {
        let s = &self.sampling;
        s.repetition_penalty != 1.0 || s.presence_penalty != 0.0 || s.frequency_penalty != 0.0
    }

    fn entry(&mut self, token: u32) -> &mut Adjusted {
        let at = self.adjusted.binary_search_by_key(&token, |entry| entry.token).unwrap_or_else(|at| {
            self.adjusted.insert(at, Adjusted { token, bias: None, is_seen: false, generated: 0 });
            at
        });
        &mut self.adjusted[at]
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are bounded by the context, far below 2^24")]
    fn adjust(&self, adjusted: &Adjusted, logit: f32) -> f32 {
        let s = &self.sampling;
        let mut l = adjusted.bias.map_or(logit, |bias| logit + bias);
        if adjusted.is_seen {
            l = if l > 0.0 { l / s.repetition_penalty } else { l * s.repetition_penalty };
        }
        if adjusted.generated > 0 {
            l -= s.presence_penalty;
            l -= s.frequency_penalty * adjusted.generated as f32;
        }
        l
    }
}

/// Candidates that a draw chooses from.
fn kept(sampling: &Sampling) -> usize {
    if sampling.temperature == 0.0 { 1 } else { effective_top_k(sampling) }
}

fn effective_top_k(sampling: &Sampling) -> usize {
    let k = if sampling.top_k == 0 { TOP_K_MAX } else { sampling.top_k };
    k as usize
}

/// R12: the index of the greatest logit, the lowest on a tie.
#[must_use]
pub fn argmax(logits: &[f32]) -> u32 {
    // Sixteen running maxima let the compiler use wide registers; their order does not matter to a maximum.
    let mut best = [f32::NEG_INFINITY; 16];
    for chunk in logits.chunks(16) {
        for (b, &l) in best.iter_mut().zip(chunk) {
            *b = if l > *b { l } else { *b };
        }
    }
    let greatest = best.into_iter().fold(f32::NEG_INFINITY, |m, l| if l > m { l } else { m });
    let index = logits.iter().position(|&l| l == greatest).unwrap_or(0);
    u32::try_from(index).expect("a vocabulary has fewer than 2^32 tokens: token ids are u32")
}

/// Whether `a` comes before `b` in the order of R12.
pub(crate) fn before(a: (u32, f32), b: (u32, f32)) -> bool {
    a.1 > b.1 || (a.1 == b.1 && a.0 < b.0)
}

/// The `k` first of the order of R12, in that order.
pub fn greatest(logits: &[f32], k: usize, top: &mut Vec<(u32, f32)>) {
    top.clear();
    if k == 0 {
        return;
    }
    let mut least = f32::NEG_INFINITY;
    for (chunk, first) in logits.chunks(16).zip((0_u32..).step_by(16)) {
        // Almost every chunk is passed by, without a branch in it, so that the compiler takes wide registers.
        if top.len() == k && !chunk.iter().fold(false, |any, &l| any | (l > least)) {
            continue;
        }
        for (id, &l) in (first..).zip(chunk) {
            // Ids rise, so an equal logit never displaces an earlier one.
            if top.len() == k && l <= least {
                continue;
            }
            let at = top.partition_point(|&entry| before(entry, (id, l)));
            top.insert(at, (id, l));
            top.truncate(k);
            least = top.last().map_or(f32::NEG_INFINITY, |entry| entry.1);
        }
    }
}

/// Temperature, softmax, cuts and the draw over candidates in the order of R12.
fn pick(top: &mut [(u32, f32)], sampling: &Sampling, u: f64) -> u32 {
    let t = sampling.temperature;
    let m = top[0].1 / t;
    let mut z = 0.0_f32;
    for (_, l) in top.iter_mut() {
        *l = exp32(*l / t - m);
        z += *l;
    }
    let kept = cut(top, z, sampling);
    let total: f64 = kept.iter().map(|&(_, e)| f64::from(e)).sum();
    let threshold = u * total;
    let mut cumulative = 0.0_f64;
    let mut last = kept[0].0;
    for &(token, e) in kept {
        if e > 0.0 {
            last = token;
        }
        cumulative += f64::from(e);
        if cumulative > threshold {
            return token;
        }
    }
    last
}

/// The candidates that survive `top_p` (the shortest prefix that holds the mass) and `min_p`.
fn cut<'a>(top: &'a [(u32, f32)], z: f32, sampling: &Sampling) -> &'a [(u32, f32)] {
    let mass = sampling.top_p * z;
    let floor = sampling.min_p * top[0].1;
    let mut cumulative = 0.0_f32;
    let mut length = 0;
    for &(_, e) in top {
        if length > 0 && (cumulative >= mass || e < floor) {
            break;
        }
        cumulative += e;
        length += 1;
    }
    &top[..length]
}

#[cfg(test)]
mod tests;
