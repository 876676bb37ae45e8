//! Logarithms of probabilities, reproducible to the last bit: the softmax of R9 and R3, and the logarithm of the pinned `libm`.

use crate::generation::TokenLogprobs;
use crate::kernels::Kernels;
use crate::sampler::{argmax, greatest};

/// Scratch for one request.
#[derive(Clone, Debug)]
pub struct Logprobs {
    count: usize,
    logits: Vec<f32>,
    exponentials: Vec<f32>,
    top: Vec<(u32, f32)>,
}

/// The distribution before a draw.
#[derive(Debug)]
pub struct Distribution<'a> {
    logits: &'a [f32],
    top: &'a [(u32, f32)],
    greatest: f32,
    log_total: f64,
}

impl Logprobs {
    /// Reports `count` alternatives.
    #[must_use]
    pub fn new(count: usize) -> Logprobs {
        Logprobs { count, logits: Vec::new(), exponentials: Vec::new(), top: Vec::new() }
    }

    /// The distribution over all tokens, from the model's own logits.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn measure(&mut self, kernels: Kernels, logits: &[f32]) -> Distribution<'_> {
        let m = logits[argmax(logits) as usize];
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.exponentials.clear();
        self.exponentials.extend(logits.iter().map(|l| l - m));
        (kernels.exp)(&mut self.exponentials);
        let total = (kernels.sum)(&self.exponentials);
        greatest(logits, self.count, &mut self.top);
        Distribution { logits: &self.logits, top: &self.top, greatest: m, log_total: libm::log(f64::from(total)) }
    }
}

impl Distribution<'_> {
    /// What is reported for the token that was drawn.
    #[must_use]
    pub fn of(&self, token: u32) -> TokenLogprobs {
        TokenLogprobs {
            logprob: self.logprob(self.logits[token as usize]),
            top: self.top.iter().map(|&(id, logit)| (id, self.logprob(logit))).collect(),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "reported as binary32")]
    fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit - self.greatest) - self.log_total) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::Logprobs;
    use crate::kernels::Kernels;

    #[test]
    fn probabilities_of_two_equal_tokens() {
        let mut logprobs = Logprobs::new(3);
        let report = logprobs.measure(Kernels::detect(), &[1.0, 1.0]).of(1);
        assert!((report.logprob + std::f32::consts::LN_2).abs() < 1e-6);
        assert_eq!(report.top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(report.top[0].1.to_bits(), report.logprob.to_bits());
    }

    #[test]
    fn a_certain_token_has_logarithm_zero() {
        let report = Logprobs::new(1).measure(Kernels::detect(), &[500.0, 0.0, 1.0]).of(0);
        assert_eq!(report.logprob.to_bits(), 0.0_f32.to_bits());
    }
}
