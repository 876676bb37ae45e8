//! A disk that loses what was not flushed, and may fail at any operation.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use aria_chain::units::Height;
use aria_node::consensus::guard::{self, Guard, GuardError, Mark};
use aria_node::consensus::log::{Log, Record};

/// Safety measures that a test may switch off, to see that something notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flaws {
    /// A flush that says it flushed and did not.
    pub(crate) no_flush: bool,
    /// A guard that admits everything.
    pub(crate) no_guard: bool,
    /// A log without blocks: they are voted for before they are stored.
    pub(crate) no_blocks: bool,
}

/// What survives a crash, and what does not.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) height: Height,
    durable: Vec<Record>,
    volatile: Vec<Record>,
    mark: Option<Mark>,
    pub(crate) flaws: Flaws,
    /// Operations until the machine dies.
    pub(crate) dies_in: Option<u32>,
}

pub(crate) type SharedDisk = Rc<RefCell<Disk>>;

impl Disk {
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.dies_in {
            Some(0) => Err(io::Error::other("the machine dies")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Power goes: some of what was not flushed may have reached the disk.
    pub(crate) fn crash(&mut self, kept: usize) {
        let kept = if self.flaws.no_flush { 0 } else { kept.min(self.volatile.len()) };
        self.durable.extend(self.volatile.drain(..kept));
        self.volatile.clear();
        self.dies_in = None;
    }

    /// A disk with all that was written to this one, which does not fail.
    pub(crate) fn copy(&self) -> Disk {
        let durable = self.durable.iter().chain(&self.volatile).cloned().collect();
        Disk { height: self.height, durable, mark: self.mark, flaws: self.flaws, ..Disk::default() }
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.durable.clone()
    }

    /// The log is lost, as when a backup is restored. The guard stays.
    pub(crate) fn lose_log(&mut self) {
        self.durable.clear();
        self.volatile.clear();
    }
}

/// The log on a disk.
pub(crate) struct DiskLog(pub(crate) SharedDisk);

impl Log for DiskLog {
    fn begin(&mut self, height: Height) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.operate()?;
        disk.height = height;
        disk.lose_log();
        Ok(())
    }

    fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.operate()?;
        if !(disk.flaws.no_blocks && matches!(record, Record::Block(..))) {
            disk.volatile.push(record.clone());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.operate()?;
        if !disk.flaws.no_flush {
            let volatile = std::mem::take(&mut disk.volatile);
            disk.durable.extend(volatile);
        }
        Ok(())
    }
}

/// The guard on a disk.
pub(crate) struct DiskGuard(pub(crate) SharedDisk);

impl Guard for DiskGuard {
    fn admit(&mut self, mark: Mark) -> Result<(), GuardError> {
        let mut disk = self.0.borrow_mut();
        let fault = |cause| GuardError::Io { path: "guard".into(), cause };
        disk.operate().map_err(fault)?;
        if !disk.flaws.no_guard {
            guard::check(disk.mark, mark)?;
        }
        disk.mark = Some(mark);
        Ok(())
    }
}
