//! Where a record is false, as who found it keeps it for the judges, and as it travels: in parts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use aria_chain::ids::{NodeId, RecordId};
use borsh::io::{Error, ErrorKind, Read};
use borsh::{BorshDeserialize, BorshSerialize};
use tokio::sync::{Semaphore, oneshot};

/// Bytes of all parts but the last one: a frame has room for more.
pub const PART_BYTES: usize = 1_024 * 1_024;
/// Parts of one layer: 3,276 positions of a model that is 2,560 wide. Records that are longer are run again as a whole.
pub const PARTS_MAX: u32 = 32;
/// Bytes of all layers that are kept: two of the largest.
const KEPT_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Layers of others that are gathered at once.
const GATHERED_MAX: usize = 2;
/// Bytes of a number of a state.
const NUMBER_BYTES: usize = 4;

/// A layer that does not give what its record claims, with what enters it.
#[derive(Clone, Debug, PartialEq)]
pub struct FalseLayer {
    /// Of which choice.
    pub choice: u32,
    /// Which layer.
    pub layer: u32,
    /// `[positions][dim]`; nothing for the first layer, which the tokens enter.
    pub states: Vec<f32>,
}

/// A part of one, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Part {
    /// Of which choice.
    pub choice: u32,
    /// Which layer.
    pub layer: u32,
    /// How many parts there are.
    pub parts: u32,
    /// Bits of the numbers of this part, little-endian.
    #[borsh(deserialize_with = "part_bytes")]
    pub bytes: Vec<u8>,
}

fn part_bytes<R: Read>(reader: &mut R) -> Result<Vec<u8>, Error> {
    // It takes no more memory than there are bytes to read.
    let bytes = Vec::<u8>::deserialize_reader(reader)?;
    if bytes.len() > PART_BYTES {
        let reason = format!("bytes of a part are {}, at most {PART_BYTES} are allowed", bytes.len());
        return Err(Error::new(ErrorKind::InvalidData, reason));
    }
    Ok(bytes)
}

impl FalseLayer {
    fn bytes(&self) -> usize {
        self.states.len() * NUMBER_BYTES
    }

    fn parts(&self) -> usize {
        self.bytes().div_ceil(PART_BYTES).max(1)
    }

    /// The part of this number.
    pub(super) fn part(&self, number: u32) -> Option<Part> {
        let numbers = PART_BYTES / NUMBER_BYTES;
        let number = usize::try_from(number).ok().filter(|number| *number < self.parts())?;
        let states = self.states.chunks(numbers).nth(number).unwrap_or_default();
        let bytes = states.iter().flat_map(|state| state.to_bits().to_le_bytes()).collect();
        let parts = u32::try_from(self.parts()).ok()?;
        Some(Part { choice: self.choice, layer: self.layer, parts, bytes })
    }
}

/// A layer of which parts came, one after the other.
#[derive(Debug)]
pub struct Gathering {
    layer: FalseLayer,
    parts: u32,
    came: u32,
}

impl Gathering {
    /// With the first part. None where it cannot be one.
    pub fn begin(first: Part) -> Option<Gathering> {
        let layer = FalseLayer { choice: first.choice, layer: first.layer, states: Vec::new() };
        let mut gathering = Gathering { layer, parts: first.parts, came: 0 };
        if !(1..=PARTS_MAX).contains(&first.parts) {
            return None;
        }
        gathering.add(first)?;
        Some(gathering)
    }

    /// The number of the next part, if there is one more.
    pub fn next(&self) -> Option<u32> {
        (self.came < self.parts).then_some(self.came)
    }

    /// Takes the next part. None where it does not belong to those before.
    pub fn add(&mut self, part: Part) -> Option<()> {
        let is_last = self.came.checked_add(1)? == self.parts;
        let is_same = (part.choice, part.layer, part.parts) == (self.layer.choice, self.layer.layer, self.parts);
        let length = part.bytes.len();
        // Only what enters the first layer is nothing, and that is one part.
        let is_whole =
            if is_last { length <= PART_BYTES && (length > 0 || self.parts == 1) } else { length == PART_BYTES };
        if !is_same || !is_whole || !length.is_multiple_of(NUMBER_BYTES) {
            return None;
        }
        let numbers = part.bytes.as_chunks::<NUMBER_BYTES>().0.iter();
        self.layer.states.extend(numbers.map(|bytes| f32::from_bits(u32::from_le_bytes(*bytes))));
        self.came += 1;
        Some(())
    }

    /// The layer, where all parts came.
    pub fn end(self) -> Option<FalseLayer> {
        (self.came == self.parts).then_some(self.layer)
    }
}

/// A question for a part of a layer.
#[derive(Debug)]
struct Question {
    from: NodeId,
    number: u32,
    told: oneshot::Sender<Option<Part>>,
}

/// Layers that this node found, for those who judge, in memory alone; and its own questions for those of others.
#[derive(Debug)]
pub struct FalseLayers {
    kept: Mutex<HashMap<RecordId, Arc<FalseLayer>>>,
    questions: Mutex<HashMap<RecordId, Question>>,
    /// Places for layers of others.
    pub(super) gathered: Semaphore,
}

impl Default for FalseLayers {
    fn default() -> FalseLayers {
        FalseLayers { kept: Mutex::default(), questions: Mutex::default(), gathered: Semaphore::new(GATHERED_MAX) }
    }
}

impl FalseLayers {
    fn kept(&self) -> MutexGuard<'_, HashMap<RecordId, Arc<FalseLayer>>> {
        self.kept.lock().expect("no section that holds this lock panics")
    }

    fn questions(&self) -> MutexGuard<'_, HashMap<RecordId, Question>> {
        self.questions.lock().expect("no section that holds this lock panics")
    }

    /// Keeps one while there is room. Whether there was.
    pub fn keep(&self, record: RecordId, layer: FalseLayer) -> bool {
        let mut kept = self.kept();
        let taken: usize = kept.iter().filter(|(of, _)| **of != record).map(|(_, layer)| layer.bytes()).sum();
        let has_room = layer.parts() <= PARTS_MAX as usize && taken + layer.bytes() <= KEPT_BYTES_MAX;
        if has_room {
            kept.insert(record, Arc::new(layer));
        }
        has_room
    }

    /// The one of a record.
    pub fn get(&self, record: &RecordId) -> Option<Arc<FalseLayer>> {
        self.kept().get(record).cloned()
    }

    /// A part of it, for who asks.
    pub fn part(&self, record: &RecordId, number: u32) -> Option<Part> {
        self.get(record)?.part(number)
    }

    /// Forgets that of a record whose audit ended.
    pub fn forget(&self, record: &RecordId) {
        self.kept().remove(record);
    }

    /// Forgets all but those that are wanted.
    pub fn retain(&self, is_wanted: impl Fn(&RecordId) -> bool) {
        let unwanted: Vec<RecordId> = self.kept().keys().filter(|record| !is_wanted(record)).copied().collect();
        unwanted.iter().for_each(|record| self.forget(record));
    }

    /// Waits for what a node says to a question: a part, or that it has none for this one.
    pub(super) fn expect(&self, record: RecordId, number: u32, from: NodeId) -> oneshot::Receiver<Option<Part>> {
        let (told, answer) = oneshot::channel();
        self.questions().insert(record, Question { from, number, told });
        answer
    }

    /// Nobody waits for parts of this one any more.
    pub(super) fn expect_none(&self, record: &RecordId) {
        self.questions().remove(record);
    }

    /// Passes an answer on to who waits for it. What was not asked for is dropped.
    pub fn came(&self, from: &NodeId, record: &RecordId, number: u32, part: Option<Part>) {
        let mut questions = self.questions();
        let is_asked = |question: &Question| question.from == *from && question.number == number;
        if questions.get(record).is_some_and(is_asked)
            && let Some(question) = questions.remove(record)
        {
            // Who gave up meanwhile asks again, or somebody else.
            let _ = question.told.send(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use aria_chain::codec::to_bytes;

    use super::*;

    /// One of so many numbers, among them some that are none.
    fn layer(numbers: usize) -> FalseLayer {
        let bits = (0_u32..).map(|at| at.wrapping_mul(2_654_435_761)).take(numbers);
        FalseLayer { choice: 1, layer: 5, states: bits.map(f32::from_bits).collect() }
    }

    /// What comes of gathering it, where parts are changed on the way.
    fn gathered(layer: &FalseLayer, change: impl Fn(u32, &mut Part)) -> Option<FalseLayer> {
        let ask = |number: u32| {
            let part = layer.part(number).expect("it is asked for what there is");
            let mut part = borsh::from_slice::<Part>(&to_bytes(&part)).expect("its own bytes");
            change(number, &mut part);
            part
        };
        let mut gathering = Gathering::begin(ask(0))?;
        while let Some(number) = gathering.next() {
            gathering.add(ask(number))?;
        }
        gathering.end()
    }

    #[test]
    fn a_layer_travels_in_parts_bit_by_bit() {
        let whole = PART_BYTES / NUMBER_BYTES;
        for (numbers, parts) in [(0, 1), (1, 1), (whole, 1), (whole + 1, 2), (2 * whole, 2), (2 * whole + 7, 3)] {
            let layer = layer(numbers);
            assert_eq!(layer.part(0).expect("the first").parts, parts);
            assert_eq!(layer.part(parts), None);
            let came = gathered(&layer, |_, _| {}).expect("all of it");
            let bits = |layer: &FalseLayer| layer.states.iter().map(|state| state.to_bits()).collect::<Vec<u32>>();
            assert_eq!((came.choice, came.layer, bits(&came)), (1, 5, bits(&layer)));
        }
    }

    #[test]
    fn parts_that_do_not_belong_together_are_no_layer() {
        let layer = layer(2 * PART_BYTES / NUMBER_BYTES + 7);
        let changes: [fn(u32, &mut Part); 9] = [
            |number, part| part.choice += number,
            |number, part| part.layer += number,
            |number, part| part.parts += number,
            |_, part| part.parts = 0,
            |_, part| part.parts = PARTS_MAX + 1,
            |_, part| part.parts = 1,
            |number, part| part.bytes.truncate(if number == 1 { PART_BYTES - 4 } else { PART_BYTES }),
            |number, part| part.bytes.truncate(if number == 2 { 0 } else { PART_BYTES }),
            |number, part| part.bytes.truncate(if number == 2 { 3 } else { PART_BYTES }),
        ];
        for (case, change) in changes.into_iter().enumerate() {
            // The first part alone is a layer of its own; it is a shorter one then, and the engine will not have it.
            let came = gathered(&layer, change);
            assert!(came.is_none_or(|came| case == 5 && came.states.len() < layer.states.len()), "case {case}");
        }
        let long = Part { choice: 0, layer: 0, parts: 1, bytes: vec![0; PART_BYTES + 4] };
        assert!(borsh::from_slice::<Part>(&to_bytes(&long)).is_err());
        let promised = [&to_bytes(&(0_u32, 0_u32, 1_u32))[..], &[0xff; 4]].concat();
        assert!(borsh::from_slice::<Part>(&promised).is_err(), "what is promised takes no memory");
    }

    #[test]
    fn what_is_kept_is_bounded_in_all_and_for_each_record_and_forgotten() {
        let layers = FalseLayers::default();
        let id = |n: u8| RecordId::new([n; 32]);
        let largest = PARTS_MAX as usize * PART_BYTES / NUMBER_BYTES;
        assert!(!layers.keep(id(1), layer(largest + 1)), "too long to travel");
        assert!(layers.keep(id(1), layer(largest)) && layers.keep(id(2), layer(largest - 1)));
        assert!(layers.keep(id(2), layer(largest - 1)), "it takes its own place");
        assert!(!layers.keep(id(3), layer(2)) && layers.part(&id(3), 0).is_none(), "there was no room");
        assert!(layers.keep(id(3), layer(1)));
        layers.forget(&id(1));
        layers.forget(&id(1));
        assert!(layers.get(&id(1)).is_none() && layers.keep(id(4), layer(2)));
        layers.retain(|record| *record == id(4));
        assert!(layers.get(&id(2)).is_none() && layers.part(&id(4), 0).is_some());
    }

    #[test]
    fn an_answer_is_taken_from_who_was_asked_and_to_what_was_asked() {
        let (layers, record) = (FalseLayers::default(), RecordId::new([1; 32]));
        let (asked, other) = (NodeId::new([2; 32]), NodeId::new([3; 32]));
        let mut answer = layers.expect(record, 1, asked);
        layers.came(&other, &record, 1, layer(1).part(0));
        layers.came(&asked, &RecordId::new([4; 32]), 1, layer(1).part(0));
        layers.came(&asked, &record, 0, layer(1).part(0));
        assert!(answer.try_recv().is_err());
        layers.came(&asked, &record, 1, layer(1).part(0));
        assert_eq!(answer.try_recv(), Ok(layer(1).part(0)));
        layers.came(&asked, &record, 1, None);
        let mut answer = layers.expect(record, 2, asked);
        layers.expect_none(&record);
        layers.came(&asked, &record, 2, None);
        assert!(answer.try_recv().is_err());
    }
}
