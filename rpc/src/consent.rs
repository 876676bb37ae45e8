//! A consent contract as JSON, in the words of the seed documents: what `chain_getConsent` and `consent.json` show, and what
//! `admin_setConsent`, `[consent]` of the configuration and the command line may change of it. Exact: numbers with a point are read
//! and written as decimal text.

use aria_chain::consent::{Consent, ConsentError, Days, TaskTypes};
use aria_chain::units::NanoAria;
use serde_json::{Map, Number, Value, json};

/// Version of this form.
const VERSION: &str = "1.0";
/// Digits behind the point of an amount in ARIA.
const ARIA_DIGITS: usize = 9;
/// Digits behind the point of megabits a second.
const MBPS_DIGITS: usize = 3;
/// Longest number that is read, and its largest exponent: beyond every range there is.
const NUMBER_MAX: usize = 40;

/// The names under which fields are read, by their canonical names.
const ALIASES: [(&str, &str); 2] =
    [("min_contribution_score", "min_reward_per_inference"), ("min_reward", "min_reward_per_inference")];

/// Every field.
pub fn show(contract: &Consent) -> Value {
    json!({
        "version": VERSION,
        "cpu_percent": contract.cpu_percent,
        "max_ram_mb": contract.max_ram_mb,
        "max_bandwidth_mbps": decimal(u64::from(contract.max_bandwidth_kbps), MBPS_DIGITS),
        "schedule": contract.schedule.to_string(),
        "days": contract.days.names().collect::<Vec<_>>(),
        "task_types": contract.task_types.names().collect::<Vec<_>>(),
        "max_concurrent_tasks": contract.max_concurrent_tasks,
        "allow_logging": contract.allow_logging,
        "allow_geo_tracking": contract.allow_geo_tracking,
        "min_reward_per_inference": decimal(contract.min_reward.get(), ARIA_DIGITS),
    })
}

/// The contract with the fields that are named, and the rest as it is in `base`. Null means absent.
pub fn amend(base: Consent, fields: &Map<String, Value>) -> Result<Consent, ConsentError> {
    let mut contract = base;
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let alias = ALIASES.into_iter().find(|(alias, _)| alias == name);
        set(&mut contract, alias.map_or(name.as_str(), |(_, canonical)| canonical), value)?;
    }
    contract.check()?;
    Ok(contract)
}

fn set(contract: &mut Consent, name: &str, value: &Value) -> Result<(), ConsentError> {
    match name {
        "version" if value == VERSION => {}
        "version" => return Err(ConsentError::form("version", "\"1.0\"", &value.to_string())),
        "cpu_percent" => contract.cpu_percent = whole("cpu_percent", value)?,
        "max_ram_mb" => contract.max_ram_mb = whole("max_ram_mb", value)?,
        "max_bandwidth_mbps" => {
            let form = "megabits a second with up to three digits behind the point, as in 10 or 0.5";
            let kbps = fixed(value, MBPS_DIGITS).and_then(|kbps| u32::try_from(kbps).ok());
            contract.max_bandwidth_kbps =
                kbps.ok_or_else(|| ConsentError::form("max_bandwidth_mbps", form, &value.to_string()))?;
        }
        "schedule" => contract.schedule = text("schedule", "a text such as 08:00-22:00", value)?.parse()?,
        "days" => {
            contract.days = match value {
                Value::String(days) => days.parse()?,
                list => Days::from_names(names("days", list)?.into_iter())?,
            }
        }
        "task_types" => {
            contract.task_types = match value {
                Value::String(tasks) => tasks.parse()?,
                list => TaskTypes::from_names(names("task_types", list)?.into_iter())?,
            }
        }
        "max_concurrent_tasks" => contract.max_concurrent_tasks = whole("max_concurrent_tasks", value)?,
        "allow_logging" => contract.allow_logging = truth("allow_logging", value)?,
        "allow_geo_tracking" => contract.allow_geo_tracking = truth("allow_geo_tracking", value)?,
        "min_reward_per_inference" => {
            let form = "ARIA with up to nine digits behind the point, as in 0.001";
            let nano = fixed(value, ARIA_DIGITS);
            let nano = nano.ok_or_else(|| ConsentError::form("min_reward_per_inference", form, &value.to_string()))?;
            contract.min_reward = NanoAria::new(nano);
        }
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn unknown(name: &str) -> ConsentError {
    let known = "one of cpu_percent, max_ram_mb, max_bandwidth_mbps, schedule, days, task_types, max_concurrent_tasks, allow_logging, allow_geo_tracking, min_reward_per_inference";
    ConsentError::form("a field of the contract", known, name)
}

/// A whole number as it is or as text. What is beyond its type is beyond its range as well.
fn whole<T: TryFrom<u64>>(field: &'static str, value: &Value) -> Result<T, ConsentError> {
    let number = fixed(value, 0).and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| ConsentError::form(field, "a whole number in its range", &value.to_string()))
}

fn truth(field: &'static str, value: &Value) -> Result<bool, ConsentError> {
    value.as_bool().ok_or_else(|| ConsentError::form(field, "true or false", &value.to_string()))
}

fn text<'v>(field: &'static str, form: &'static str, value: &'v Value) -> Result<&'v str, ConsentError> {
    value.as_str().ok_or_else(|| ConsentError::form(field, form, &value.to_string()))
}

fn names<'v>(field: &'static str, value: &'v Value) -> Result<Vec<&'v str>, ConsentError> {
    let list = value.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
    list.flatten().ok_or_else(|| ConsentError::form(field, "a list of names", &value.to_string()))
}

/// A number of so many digits behind the point as JSON has it: without a point where it is whole.
fn decimal(value: u64, digits: usize) -> Value {
    let one = 10_u64.pow(u32::try_from(digits).expect("a few digits"));
    if value.is_multiple_of(one) {
        return json!(value / one);
    }
    let text = format!("{}.{:0digits$}", value / one, value % one);
    json!(text.parse::<Number>().expect("digits with a point between them are a number"))
}

/// A decimal number, or a text of one, in units of the last of so many digits behind the point. Nothing is rounded.
fn fixed(value: &Value, digits: usize) -> Option<u64> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    if text.len() > NUMBER_MAX {
        return None;
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|exponent: &i32| exponent.unsigned_abs() < 100)?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(part) || mantissa.ends_with('.') {
        return None;
    }
    let mut number = format!("{whole}{part}");
    let shift = exponent + i32::try_from(digits).ok()? - i32::try_from(part.len()).ok()?;
    if shift >= 0 {
        number.extend(std::iter::repeat_n('0', shift.unsigned_abs() as usize));
    } else {
        let kept = number.len().saturating_sub(shift.unsigned_abs() as usize);
        if number[kept..].bytes().any(|byte| byte != b'0') {
            return None;
        }
        number.truncate(kept);
    }
    if number.is_empty() { Some(0) } else { number.parse().ok() }
}

#[cfg(test)]
mod tests {
    use aria_chain::consent::{BANDWIDTH_KBPS_MAX, CONCURRENT_MAX, MIN_REWARD_MAX, RAM_MB_MAX};

    use super::*;

    fn amended(fields: Value) -> Result<Consent, ConsentError> {
        let Value::Object(fields) = fields else { panic!("an object") };
        amend(Consent::default(), &fields)
    }

    #[test]
    fn the_seeds_contract_is_read_and_written_as_they_write_it() {
        let seeds = json!({
            "version": "1.0", "cpu_percent": 25, "max_ram_mb": 512, "max_bandwidth_mbps": 10, "schedule": "08:00-22:00",
            "days": ["mon", "tue", "wed", "thu", "fri"], "task_types": ["text_gen", "code_gen"], "max_concurrent_tasks": 2,
            "allow_logging": true, "allow_geo_tracking": false, "min_reward_per_inference": 0.001,
        });
        let contract = amended(seeds.clone()).unwrap();
        assert_eq!(contract.min_reward, NanoAria::new(1_000_000));
        assert_eq!(show(&contract), seeds);
        let older = json!({
            "task_types": ["text_generation", "code_generation"], "min_contribution_score": "0.001", "days": "mon-fri",
            "schedule": "08:00-22:00", "cpu_percent": null,
        });
        assert_eq!(amended(older), Ok(contract), "older names are read, canonical ones are written");
    }

    #[test]
    fn every_contract_survives_being_written() {
        let rewards =
            [0, 1, 100, 999_999_999, 1_000_000_000, 1_500_000_000, MIN_REWARD_MAX.get() - 1, MIN_REWARD_MAX.get()];
        let bandwidths = [1, 500, 999, 1_000, 1_001, 10_000, 123_456, BANDWIDTH_KBPS_MAX];
        for (reward, max_bandwidth_kbps) in rewards.into_iter().zip(bandwidths) {
            let contract = Consent {
                max_bandwidth_kbps,
                max_ram_mb: RAM_MB_MAX,
                max_concurrent_tasks: CONCURRENT_MAX,
                min_reward: NanoAria::new(reward),
                schedule: "22:00-06:00".parse().unwrap(),
                days: "sat,sun".parse().unwrap(),
                task_types: "embedding".parse().unwrap(),
                ..Consent::default()
            };
            let written = show(&contract).to_string();
            let read: Value = serde_json::from_str(&written).unwrap();
            assert_eq!(amended(read), Ok(contract), "{written}");
        }
    }

    #[test]
    fn what_cannot_be_names_its_field() {
        for (fields, field) in [
            (json!({"cpu_percent": 101}), "cpu_percent"),
            (json!({"cpu_percent": 0}), "cpu_percent"),
            (json!({"cpu_percent": 25.5}), "cpu_percent"),
            (json!({"cpu_percent": -25}), "cpu_percent"),
            (json!({"cpu_percent": 1_000}), "cpu_percent"),
            (json!({"max_ram_mb": "much"}), "max_ram_mb"),
            (json!({"max_bandwidth_mbps": 0.0001}), "max_bandwidth_mbps"),
            (json!({"max_bandwidth_mbps": 1e300}), "max_bandwidth_mbps"),
            (json!({"schedule": "8-22"}), "schedule"),
            (json!({"schedule": 8}), "schedule"),
            (json!({"days": []}), "days"),
            (json!({"days": ["mo"]}), "days"),
            (json!({"days": [1]}), "days"),
            (json!({"task_types": ["poetry"]}), "task_types"),
            (json!({"max_concurrent_tasks": 70_000}), "max_concurrent_tasks"),
            (json!({"allow_logging": "yes"}), "allow_logging"),
            (json!({"min_reward_per_inference": "0.0000000001"}), "min_reward_per_inference"),
            (json!({"min_reward_per_inference": 100_001}), "min_reward"),
            (json!({"version": "2.0"}), "version"),
            (json!({"cpu_percnt": 25}), "cpu_percnt"),
        ] {
            let error = amended(fields.clone()).unwrap_err().to_string();
            assert!(error.contains(field), "{fields}: {error}");
        }
    }
}
