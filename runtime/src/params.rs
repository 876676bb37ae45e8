//! Genesis parameters: the numbers on which all nodes of a chain agree, and the relations that must hold between
//! them. A chain whose parameters contradict each other does not start.

use std::num::NonZeroU64;

use aria_chain::limits::{BLOCK_RECORDS_MAX, BLOCK_TRANSACTIONS_MAX, BODY_BYTES_MAX, STAMP_ZERO_DIGITS_MAX};
use aria_chain::units::{Epoch, Height, NanoAria};
use borsh::BorshSerialize;
use serde::{Deserialize, Serialize};

use crate::rules::audit::{DRAW_AFTER, JUDGES_MAX};
use crate::rules::doubt::SPANS;
use crate::rules::fee;

/// One whole in parts per million.
pub const PPM: u32 = 1_000_000;

/// Most power that a genesis may let change hands in an epoch.
pub const POWER_CHANGE_PPM_MAX: u32 = PPM.div_euclid(3);

/// Most auditors of one record: their state fits one entry.
pub const COMMITTEE_MAX: u32 = 16;

/// Most auditors who are paid for one record: a committee, and judges twice.
const AUDITORS_MAX: u32 = COMMITTEE_MAX.saturating_add(JUDGES_MAX.saturating_mul(2));

/// Largest energy bonus that a genesis may promise. Ten times leaves the reward far inside 64 bits.
pub const BONUS_PPM_MAX: u32 = 10 * PPM;

/// Registering a model costs so many times the least fee besides its own fee, all of it destroyed: a proposal takes one of few
/// places for long, and voters read whole model files for it. A chain with dear places has dear proposals.
pub const MODEL_FEES: u64 = 10_000;

/// Parameters of a chain. Fixed at genesis; every field is part of the genesis hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Least time between a block and its parent.
    pub block_interval_ms: u64,
    /// A block without records is valid only this long after its parent.
    pub heartbeat_ms: u64,
    /// Blocks of one epoch: epoch = height / this.
    pub epoch_blocks: u64,
    /// Verified work counts this many epochs.
    pub work_window_epochs: u64,
    /// Verified work in a window at which the power that genesis gave has faded away.
    pub base_work: u64,
    /// Work that one nano-ARIA of bond backs. Work beyond gives no power.
    pub work_per_bond_nano: u64,
    /// Most power that changes hands from one epoch to the next.
    pub power_change_ppm: u32,
    /// Part of a bond that is destroyed when its owner contradicts itself.
    pub slash_ppm: u32,
    /// Blocks until a bond that is being freed is paid out; until then it can be slashed.
    pub unbond_blocks: u64,
    /// Least fee of a transaction for each place that it takes in a block, in nano-ARIA.
    pub fee_min_nano: u64,
    /// Part of a fee that is destroyed; the proposer gets the rest.
    pub fee_burn_ppm: u32,
    /// Part of the records that are audited.
    pub audit_rate_ppm: u32,
    /// Auditors of one record.
    pub committee_size: u32,
    /// Blocks in which an audit is over.
    pub audit_blocks: u64,
    /// Blocks in which a provider that is challenged must post what its auditors need.
    pub challenge_blocks: u64,
    /// Work of one audit, as a part of the record's.
    pub audit_work_ppm: u32,
    /// Part of what is left of a request's fee that its auditors get, each an equal share of it.
    pub audit_share_ppm: u32,
    /// Most that a request may pay: what it costs to be found out must outweigh it.
    pub request_fee_max_nano: u64,
    /// Most that is minted for a record, as a part of what its fee destroys, where its requester chose the provider.
    pub mint_of_burn_ppm: u32,
    /// Part of a bond that is destroyed when a record is refuted, or an auditor found to have lied.
    pub refuted_slash_ppm: u32,
    /// Least bond of a node whose records earn something.
    pub provider_bond_min_nano: u64,
    /// Most records in one block.
    pub records_per_block_max: u32,
    /// Places for transactions in one block.
    pub transactions_per_block_max: u32,
    /// Largest encoded body of a block.
    pub block_bytes_max: u32,
    /// Leading zero hex digits of every block hash: a stamp against spam. It elects nobody.
    pub stamp_zero_digits: u8,
    /// How far a timestamp may lie ahead of the clock it is compared with.
    pub clock_skew_ms: u64,
    /// How old a record may be when a block includes it.
    pub record_age_ms_max: u64,
    /// How far ahead a request may expire. Bounds the set of request ids to remember.
    pub request_expiry_blocks_max: u64,
    /// Most energy of one record.
    pub energy_uj_max: u64,
    /// Longest latency of one record.
    pub latency_ms_max: u64,
    /// Prompt tokens count as work up to this many times the generated ones.
    pub prompt_credit_ratio: u32,
    /// Reward of one record at full quality and neutral efficiency, in nano-ARIA.
    pub base_rate_nano: u64,
    /// Quality is judged by the time of an answer this long.
    pub quality_tokens: u32,
    /// Up to this time the quality is full.
    pub quality_full_ms: u64,
    /// This much later it is zero.
    pub quality_span_ms: u64,
    /// Energy of a generated token at which efficiency is neutral.
    pub energy_baseline_uj: u64,
    /// Least energy that 10^9 operations can take; a claim below it counts as this.
    pub energy_floor_uj_per_gigaop: u64,
    /// Smallest efficiency factor.
    pub bonus_min_ppm: u32,
    /// Largest efficiency factor, for measured energy.
    pub bonus_max_ppm: u32,
}

/// Why a genesis' parameters are refused. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// Quantities that divide or bound something are positive.
    #[error("parameter {field} is zero; give it a positive value")]
    Zero {
        /// The parameter.
        field: &'static str,
    },
    /// A heartbeat is a block, and blocks keep their distance.
    #[error("heartbeat_ms {heartbeat_ms} is below block_interval_ms {block_interval_ms}; raise the heartbeat")]
    HeartbeatTooShort {
        /// As given.
        heartbeat_ms: u64,
        /// As given.
        block_interval_ms: u64,
    },
    /// Otherwise a record could be older than allowed and from the future at once.
    #[error("clock_skew_ms {clock_skew_ms} is not below record_age_ms_max {record_age_ms_max}; lower the skew")]
    SkewTooWide {
        /// As given.
        clock_skew_ms: u64,
        /// As given.
        record_age_ms_max: u64,
    },
    /// See [`BLOCK_RECORDS_MAX`].
    #[error("records_per_block_max {records} is above {BLOCK_RECORDS_MAX}; lower it")]
    TooManyRecords {
        /// As given.
        records: u32,
    },
    /// A share is at most a whole.
    #[error("{field} {ppm} is above 1000000, a whole; lower it")]
    Share {
        /// The parameter.
        field: &'static str,
        /// As given.
        ppm: u32,
    },
    /// See [`COMMITTEE_MAX`].
    #[error("committee_size {size} is not 1 to {COMMITTEE_MAX}; choose one of them")]
    Committee {
        /// As given.
        size: u32,
    },
    /// A bond that can be taken out before its owner is found out is none.
    #[error("unbond_blocks {unbond_blocks} is not above the {needed} blocks of an audit with its dispute; raise it")]
    UnbondBeforeAudit {
        /// As given.
        unbond_blocks: u64,
        /// Blocks until every audit has ended.
        needed: u64,
    },
    /// Auditors need time behind a challenge.
    #[error(
        "challenge_blocks {challenge_blocks} is above {max}, a quarter of audit_blocks; lower it, or raise audit_blocks"
    )]
    ChallengeTooLong {
        /// As given.
        challenge_blocks: u64,
        /// A quarter of the blocks of an audit, but at least one.
        max: u64,
    },
    /// Whoever answers falsely must lose more on the average than it can gain.
    #[error(
        "cheating pays: of {audit_rate_ppm} ppm of the records, {refuted_slash_ppm} ppm of a bond of {bond} nano-ARIA do not outweigh rewards, fees and turns to propose worth up to {gain} nano-ARIA for the others; raise one of the three"
    )]
    CheatingPays {
        /// As given.
        audit_rate_ppm: u32,
        /// As given.
        refuted_slash_ppm: u32,
        /// As given.
        bond: u64,
        /// Largest reward of one record, with its share of the largest fee, and what the power that it may give brings.
        gain: u64,
    },
    /// Whoever pays itself for its own requests must lose by it.
    #[error("mint_of_burn_ppm {ppm} is not below 1000000: asking oneself would pay; lower it")]
    SelfDealingPays {
        /// As given.
        ppm: u32,
    },
    /// See [`BLOCK_TRANSACTIONS_MAX`].
    #[error("transactions_per_block_max {transactions} is above {BLOCK_TRANSACTIONS_MAX}; lower it")]
    TooManyTransactions {
        /// As given.
        transactions: u32,
    },
    /// A fee cannot lose more than itself.
    #[error("fee_burn_ppm {ppm} is above 1000000, a whole fee; lower it")]
    FeeBurn {
        /// As given.
        ppm: u32,
    },
    /// Who frees a bond stays liable for what it did while it had power.
    #[error(
        "unbond_blocks {unbond_blocks} is less than two epochs of {epoch_blocks} blocks, in which the bond still gives power; raise it"
    )]
    UnbondTooSoon {
        /// As given.
        unbond_blocks: u64,
        /// As given.
        epoch_blocks: u64,
    },
    /// See [`BODY_BYTES_MAX`].
    #[error("block_bytes_max {bytes} is above {BODY_BYTES_MAX}; lower it")]
    BlockTooBig {
        /// As given.
        bytes: u32,
    },
    /// See [`STAMP_ZERO_DIGITS_MAX`].
    #[error("stamp_zero_digits {digits} is above {STAMP_ZERO_DIGITS_MAX}; the stamp is no lottery, lower it")]
    StampTooHard {
        /// As given.
        digits: u8,
    },
    /// Efficiency is clamped between the two.
    #[error("bonus_min_ppm {min} is above bonus_max_ppm {max}; exchange them")]
    BonusInverted {
        /// As given.
        min: u32,
        /// As given.
        max: u32,
    },
    /// Unknown energy earns exactly one whole, so one whole lies between the bounds.
    #[error("the bonus range {min}..{max} ppm does not contain 1000000, the bonus of unknown energy; widen it")]
    BonusNotNeutral {
        /// As given.
        min: u32,
        /// As given.
        max: u32,
    },
    /// See [`BONUS_PPM_MAX`].
    #[error("bonus_max_ppm {max} is above {BONUS_PPM_MAX}; lower it")]
    BonusTooHigh {
        /// As given.
        max: u32,
    },
    /// Who trusts one set must be able to trust the next: more than two thirds stay.
    #[error("power_change_ppm {ppm} is above {POWER_CHANGE_PPM_MAX}, a third; lower it")]
    PowerChange {
        /// As given.
        ppm: u32,
    },
    /// A bond cannot lose more than itself.
    #[error("slash_ppm {ppm} is above 1000000, a whole bond; lower it")]
    Slash {
        /// As given.
        ppm: u32,
    },
    /// A block of the best records must not overflow the supply.
    #[error("base_rate_nano {base_rate_nano} can overflow the reward of one block; lower it")]
    RewardOverflow {
        /// As given.
        base_rate_nano: u64,
    },
}

impl Params {
    /// What registering a model costs besides the fee: [`MODEL_FEES`] times the least one.
    pub fn model_fee(&self) -> NanoAria {
        // Where this is more than there can be, nobody can pay it, which is what such a fee says.
        NanoAria::new(self.fee_min_nano.saturating_mul(MODEL_FEES))
    }

    /// Most that a request may pay.
    pub fn request_fee_max(&self) -> NanoAria {
        NanoAria::new(self.request_fee_max_nano)
    }

    /// Checks every relation between the parameters.
    pub fn check(&self) -> Result<(), ParamsError> {
        self.check_positive()?;
        if self.heartbeat_ms < self.block_interval_ms {
            let Params { heartbeat_ms, block_interval_ms, .. } = *self;
            return Err(ParamsError::HeartbeatTooShort { heartbeat_ms, block_interval_ms });
        }
        if self.clock_skew_ms >= self.record_age_ms_max {
            let Params { clock_skew_ms, record_age_ms_max, .. } = *self;
            return Err(ParamsError::SkewTooWide { clock_skew_ms, record_age_ms_max });
        }
        self.check_sizes()?;
        self.check_power()?;
        self.check_rewards()?;
        self.check_audits()
    }

    fn check_positive(&self) -> Result<(), ParamsError> {
        let fields = [
            ("block_interval_ms", self.block_interval_ms),
            ("epoch_blocks", self.epoch_blocks),
            ("work_window_epochs", self.work_window_epochs),
            ("base_work", self.base_work),
            ("power_change_ppm", u64::from(self.power_change_ppm)),
            ("unbond_blocks", self.unbond_blocks),
            ("transactions_per_block_max", u64::from(self.transactions_per_block_max)),
            ("audit_blocks", self.audit_blocks),
            ("challenge_blocks", self.challenge_blocks),
            ("records_per_block_max", u64::from(self.records_per_block_max)),
            ("block_bytes_max", u64::from(self.block_bytes_max)),
            ("record_age_ms_max", self.record_age_ms_max),
            ("request_expiry_blocks_max", self.request_expiry_blocks_max),
            ("energy_uj_max", self.energy_uj_max),
            ("latency_ms_max", self.latency_ms_max),
            ("quality_tokens", u64::from(self.quality_tokens)),
            ("quality_span_ms", self.quality_span_ms),
            ("energy_baseline_uj", self.energy_baseline_uj),
        ];
        match fields.into_iter().find(|(_, value)| *value == 0) {
            Some((field, _)) => Err(ParamsError::Zero { field }),
            None => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<(), ParamsError> {
        if exceeds(self.records_per_block_max, BLOCK_RECORDS_MAX) {
            return Err(ParamsError::TooManyRecords { records: self.records_per_block_max });
        }
        if exceeds(self.transactions_per_block_max, BLOCK_TRANSACTIONS_MAX) {
            return Err(ParamsError::TooManyTransactions { transactions: self.transactions_per_block_max });
        }
        if exceeds(self.block_bytes_max, BODY_BYTES_MAX) {
            return Err(ParamsError::BlockTooBig { bytes: self.block_bytes_max });
        }
        if self.stamp_zero_digits > STAMP_ZERO_DIGITS_MAX {
            return Err(ParamsError::StampTooHard { digits: self.stamp_zero_digits });
        }
        Ok(())
    }

    fn check_power(&self) -> Result<(), ParamsError> {
        if self.power_change_ppm > POWER_CHANGE_PPM_MAX {
            return Err(ParamsError::PowerChange { ppm: self.power_change_ppm });
        }
        if self.slash_ppm > PPM {
            return Err(ParamsError::Slash { ppm: self.slash_ppm });
        }
        if self.fee_burn_ppm > PPM {
            return Err(ParamsError::FeeBurn { ppm: self.fee_burn_ppm });
        }
        let Params { unbond_blocks, epoch_blocks, .. } = *self;
        if unbond_blocks < epoch_blocks.saturating_mul(2) {
            return Err(ParamsError::UnbondTooSoon { unbond_blocks, epoch_blocks });
        }
        Ok(())
    }

    fn check_rewards(&self) -> Result<(), ParamsError> {
        let (min, max) = (self.bonus_min_ppm, self.bonus_max_ppm);
        if min > max {
            return Err(ParamsError::BonusInverted { min, max });
        }
        if min > PPM || max < PPM {
            return Err(ParamsError::BonusNotNeutral { min, max });
        }
        if max > BONUS_PPM_MAX {
            return Err(ParamsError::BonusTooHigh { max });
        }
        if self.most_minted().saturating_mul(u128::from(self.records_per_block_max)) > u128::from(u64::MAX) {
            return Err(ParamsError::RewardOverflow { base_rate_nano: self.base_rate_nano });
        }
        Ok(())
    }

    fn check_audits(&self) -> Result<(), ParamsError> {
        let shares = [
            ("audit_rate_ppm", self.audit_rate_ppm),
            ("audit_work_ppm", self.audit_work_ppm),
            ("audit_share_ppm", self.audit_share_ppm),
            ("refuted_slash_ppm", self.refuted_slash_ppm),
        ];
        if let Some((field, ppm)) = shares.into_iter().find(|(_, ppm)| *ppm > PPM) {
            return Err(ParamsError::Share { field, ppm });
        }
        if self.mint_of_burn_ppm >= PPM {
            return Err(ParamsError::SelfDealingPays { ppm: self.mint_of_burn_ppm });
        }
        if !(1..=COMMITTEE_MAX).contains(&self.committee_size) {
            return Err(ParamsError::Committee { size: self.committee_size });
        }
        let needed = self.audit_blocks.saturating_mul(SPANS).saturating_add(DRAW_AFTER);
        if self.unbond_blocks <= needed {
            return Err(ParamsError::UnbondBeforeAudit { unbond_blocks: self.unbond_blocks, needed });
        }
        let (challenge_blocks, max) = (self.challenge_blocks, self.audit_blocks.div_euclid(4).max(1));
        if challenge_blocks > max {
            return Err(ParamsError::ChallengeTooLong { challenge_blocks, max });
        }
        // Expected loss of one false record against the reward of one that is not drawn, both times 10^12.
        let (rate, slash, bond) = (self.audit_rate_ppm, self.refuted_slash_ppm, self.provider_bond_min_nano);
        let paid = self.request_fee_max().minus_or_zero(fee::burned(self.request_fee_max(), self));
        let gain = self.best_reward().saturating_add(u128::from(paid.get())).saturating_add(self.turns_worth());
        let gain = u64::try_from(gain).unwrap_or(u64::MAX);
        let lost = u128::from(rate).saturating_mul(u128::from(slash)).saturating_mul(u128::from(bond));
        let free = u128::from(PPM.saturating_sub(rate)).saturating_mul(u128::from(PPM));
        if lost <= free.saturating_mul(u128::from(gain)) {
            return Err(ParamsError::CheatingPays { audit_rate_ppm: rate, refuted_slash_ppm: slash, bond, gain });
        }
        Ok(())
    }

    /// What the power that one record can give a provider of the least bond brings while it lasts, if all blocks are full of
    /// transactions at the least fee: its share of the turns to propose is at most what its bond backs of [`Params::base_work`].
    fn turns_worth(&self) -> u128 {
        let fee = NanoAria::new(self.fee_min_nano);
        let left = u128::from(fee.minus_or_zero(fee::burned(fee, self)).get());
        let blocks = u128::from(self.work_window_epochs).saturating_mul(u128::from(self.epoch_blocks));
        let all = left.saturating_mul(u128::from(self.transactions_per_block_max)).saturating_mul(blocks);
        let backed = u128::from(self.work_per_bond_nano).saturating_mul(u128::from(self.provider_bond_min_nano));
        all.saturating_mul(backed).checked_div(u128::from(self.base_work)).unwrap_or(all).min(all)
    }

    /// Most that a record can be paid.
    fn best_reward(&self) -> u128 {
        u128::from(self.base_rate_nano).saturating_mul(u128::from(self.bonus_max_ppm)).div_ceil(u128::from(PPM))
    }

    /// Most that is minted for a record: its reward, and the fees of a committee and of the judges above it.
    fn most_minted(&self) -> u128 {
        let fees =
            u128::from(fee::audit_fee(self.request_fee_max(), self).get()).saturating_mul(u128::from(AUDITORS_MAX));
        self.best_reward().saturating_add(fees)
    }

    /// [`Params::quality_span_ms`], which [`Params::check`] found positive.
    pub(crate) fn quality_span(&self) -> NonZeroU64 {
        positive(self.quality_span_ms)
    }

    /// The first height of the epoch that a height is in.
    pub fn epoch_start(&self, height: Height) -> Height {
        let into = height.get().rem_euclid(positive(self.epoch_blocks).get());
        Height::new(height.get().saturating_sub(into))
    }

    /// Whether an epoch begins at a height. The genesis block begins none: its state begins with everything.
    pub fn is_epoch_start(&self, height: Height) -> bool {
        height > Height::ZERO && self.epoch_start(height) == height
    }

    /// The epoch of a height.
    pub fn epoch_of(&self, height: Height) -> Epoch {
        Epoch::new(height.get().div_euclid(positive(self.epoch_blocks).get()))
    }
}

/// Whether a parameter is above a limit of the protocol.
fn exceeds(value: u32, limit: usize) -> bool {
    usize::try_from(value).map_or(true, |value| value > limit)
}

/// A parameter that [`Params::check`] found positive. Unchecked parameters count as one instead of dividing by zero.
fn positive(value: u64) -> NonZeroU64 {
    NonZeroU64::new(value).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The values of the devnet, which `tests/vectors.rs` compares with the file.
    pub(crate) fn params() -> Params {
        Params {
            block_interval_ms: 200,
            heartbeat_ms: 60_000,
            epoch_blocks: 100,
            work_window_epochs: 10,
            base_work: 1_000_000_000_000_000,
            work_per_bond_nano: 1_000,
            power_change_ppm: 333_333,
            slash_ppm: 50_000,
            unbond_blocks: 1_000,
            fee_min_nano: 100_000,
            fee_burn_ppm: 500_000,
            transactions_per_block_max: 256,
            audit_rate_ppm: 1_000_000,
            committee_size: 5,
            audit_blocks: 64,
            challenge_blocks: 16,
            audit_work_ppm: 250_000,
            audit_share_ppm: 900_000,
            request_fee_max_nano: 10_000_000,
            mint_of_burn_ppm: 900_000,
            refuted_slash_ppm: 100_000,
            provider_bond_min_nano: 1_000_000_000,
            records_per_block_max: 256,
            block_bytes_max: 4_194_304,
            stamp_zero_digits: 2,
            clock_skew_ms: 30_000,
            record_age_ms_max: 3_600_000,
            request_expiry_blocks_max: 20_000,
            energy_uj_max: 1_000_000_000,
            latency_ms_max: 300_000,
            prompt_credit_ratio: 2,
            base_rate_nano: 1_000_000,
            quality_tokens: 50,
            quality_full_ms: 1_000,
            quality_span_ms: 4_000,
            energy_baseline_uj: 150_000,
            energy_floor_uj_per_gigaop: 1_000,
            bonus_min_ppm: 500_000,
            bonus_max_ppm: 2_000_000,
        }
    }

    #[test]
    fn an_epoch_is_a_span_of_heights() {
        let epoch = |height| params().epoch_of(Height::new(height)).get();
        assert_eq!([epoch(0), epoch(99), epoch(100), epoch(199), epoch(u64::MAX)], [0, 0, 1, 1, u64::MAX / 100]);
    }

    #[test]
    fn epochs_begin_at_their_first_height_but_not_at_genesis() {
        let begins: Vec<u64> = (0..250).filter(|height| params().is_epoch_start(Height::new(*height))).collect();
        assert_eq!(begins, [100, 200]);
        assert_eq!([0, 99, 100, 199].map(|height| params().epoch_start(Height::new(height)).get()), [0, 0, 100, 100]);
        let each = Params { epoch_blocks: 1, ..params() };
        assert!(each.is_epoch_start(Height::new(1)) && each.is_epoch_start(Height::new(2)));
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Params), expected: &ParamsError) {
        let mut changed = params();
        change(&mut changed);
        assert_eq!(changed.check().as_ref(), Err(expected));
    }

    #[test]
    fn the_devnet_is_consistent() {
        assert_eq!(params().check(), Ok(()));
    }

    #[test]
    fn what_divides_or_bounds_is_positive() {
        let zero = |field| ParamsError::Zero { field };
        refused(|p| p.block_interval_ms = 0, &zero("block_interval_ms"));
        refused(|p| p.epoch_blocks = 0, &zero("epoch_blocks"));
        refused(|p| p.work_window_epochs = 0, &zero("work_window_epochs"));
        refused(|p| p.base_work = 0, &zero("base_work"));
        refused(|p| p.power_change_ppm = 0, &zero("power_change_ppm"));
        refused(|p| p.unbond_blocks = 0, &zero("unbond_blocks"));
        refused(|p| p.transactions_per_block_max = 0, &zero("transactions_per_block_max"));
        refused(|p| p.audit_blocks = 0, &zero("audit_blocks"));
        refused(|p| p.challenge_blocks = 0, &zero("challenge_blocks"));
        refused(|p| p.records_per_block_max = 0, &zero("records_per_block_max"));
        refused(|p| p.block_bytes_max = 0, &zero("block_bytes_max"));
        refused(|p| p.record_age_ms_max = 0, &zero("record_age_ms_max"));
        refused(|p| p.request_expiry_blocks_max = 0, &zero("request_expiry_blocks_max"));
        refused(|p| p.energy_uj_max = 0, &zero("energy_uj_max"));
        refused(|p| p.latency_ms_max = 0, &zero("latency_ms_max"));
        refused(|p| p.quality_tokens = 0, &zero("quality_tokens"));
        refused(|p| p.quality_span_ms = 0, &zero("quality_span_ms"));
        refused(|p| p.energy_baseline_uj = 0, &zero("energy_baseline_uj"));
    }

    #[test]
    fn times_fit_each_other() {
        let short = ParamsError::HeartbeatTooShort { heartbeat_ms: 199, block_interval_ms: 200 };
        refused(|p| p.heartbeat_ms = 199, &short);
        let wide = ParamsError::SkewTooWide { clock_skew_ms: 3_600_000, record_age_ms_max: 3_600_000 };
        refused(|p| p.clock_skew_ms = 3_600_000, &wide);
    }

    #[test]
    fn sizes_stay_within_the_limits() {
        refused(|p| p.records_per_block_max = 1_025, &ParamsError::TooManyRecords { records: 1_025 });
        let many = ParamsError::TooManyTransactions { transactions: 1_025 };
        refused(|p| p.transactions_per_block_max = 1_025, &many);
        refused(|p| p.block_bytes_max = 6_291_457, &ParamsError::BlockTooBig { bytes: 6_291_457 });
        refused(|p| p.stamp_zero_digits = 7, &ParamsError::StampTooHard { digits: 7 });
    }

    #[test]
    fn power_moves_slowly_and_bonds_lose_no_more_than_themselves() {
        refused(|p| p.power_change_ppm = 333_334, &ParamsError::PowerChange { ppm: 333_334 });
        refused(|p| p.slash_ppm = 1_000_001, &ParamsError::Slash { ppm: 1_000_001 });
        refused(|p| p.fee_burn_ppm = 1_000_001, &ParamsError::FeeBurn { ppm: 1_000_001 });
        let soon = ParamsError::UnbondTooSoon { unbond_blocks: 199, epoch_blocks: 100 };
        refused(|p| p.unbond_blocks = 199, &soon);
        assert_eq!(Params { slash_ppm: 1_000_000, work_per_bond_nano: 0, ..params() }.check(), Ok(()));
    }

    #[test]
    fn cheating_does_not_pay() {
        let share = |field| ParamsError::Share { field, ppm: 1_000_001 };
        refused(|p| p.audit_rate_ppm = 1_000_001, &share("audit_rate_ppm"));
        refused(|p| p.audit_work_ppm = 1_000_001, &share("audit_work_ppm"));
        refused(|p| p.audit_share_ppm = 1_000_001, &share("audit_share_ppm"));
        refused(|p| p.refuted_slash_ppm = 1_000_001, &share("refuted_slash_ppm"));
        for size in [0, 17] {
            refused(|p| p.committee_size = size, &ParamsError::Committee { size });
        }
        let late = ParamsError::UnbondBeforeAudit { unbond_blocks: 1_000, needed: 1_002 };
        refused(|p| p.audit_blocks = 250, &late);
        let long = |challenge_blocks, max| ParamsError::ChallengeTooLong { challenge_blocks, max };
        refused(|p| p.challenge_blocks = 17, &long(17, 16));
        refused(|p| p.audit_blocks = 7, &long(16, 1));
        assert_eq!(Params { audit_blocks: 1, challenge_blocks: 1, ..params() }.check(), Ok(()));
        refused(|p| p.mint_of_burn_ppm = 1_000_000, &ParamsError::SelfDealingPays { ppm: 1_000_000 });
        // Three tenths of 1 ARIA at risk in one of ten records, against 0.007 ARIA and 0.0128 ARIA in nine of ten: 0.03 > 0.01782.
        // The latter are a thousandth of the power, and so of the fees in ten epochs of full blocks, 12.8 ARIA.
        let devnet = params();
        let steep = Params { refuted_slash_ppm: 300_000, ..params() };
        let with = |params: &Params, rate, bond| {
            Params { audit_rate_ppm: rate, provider_bond_min_nano: bond, ..params.clone() }.check()
        };
        let at = |rate, bond| with(&steep, rate, bond);
        assert!(
            matches!(with(&devnet, 100_000, 1_000_000_000_000), Err(ParamsError::CheatingPays { .. })),
            "for the power alone"
        );
        assert_eq!(at(100_000, 1_000_000_000), Ok(()));
        assert_eq!(at(100_000, 340_909_081), Ok(()));
        assert!(matches!(at(100_000, 340_909_080), Err(ParamsError::CheatingPays { gain: 11_363_636, .. })));
        assert!(matches!(at(0, u64::MAX), Err(ParamsError::CheatingPays { .. })), "nobody looks");
        assert!(matches!(at(1_000_000, 0), Err(ParamsError::CheatingPays { .. })), "nothing to lose");
    }

    #[test]
    fn rewards_cannot_overflow_or_invert() {
        refused(|p| p.bonus_min_ppm = 3_000_000, &ParamsError::BonusInverted { min: 3_000_000, max: 2_000_000 });
        refused(|p| p.bonus_max_ppm = 900_000, &ParamsError::BonusNotNeutral { min: 500_000, max: 900_000 });
        refused(|p| p.bonus_min_ppm = 1_000_001, &ParamsError::BonusNotNeutral { min: 1_000_001, max: 2_000_000 });
        refused(|p| p.bonus_max_ppm = 10_000_001, &ParamsError::BonusTooHigh { max: 10_000_001 });
        // (2^64 / 256 records - 80 auditors x 900,000) / 2
        let edge = 36_028_796_982_963_967;
        refused(|p| p.base_rate_nano = edge + 1, &ParamsError::RewardOverflow { base_rate_nano: edge + 1 });
        let at_the_edge = Params { base_rate_nano: edge, ..params() };
        assert_eq!(at_the_edge.check(), Ok(()));
    }
}
