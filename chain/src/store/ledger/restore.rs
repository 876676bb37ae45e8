//! A store that begins with a snapshot: the state after some block, without the blocks below.

use std::collections::BTreeMap;

use super::super::error::StoreError;
use super::super::schema::{self, Tree, Writes};
use super::super::{StateEntry, StoredChain, Tip};
use super::writing::{
    Lists, write_attestations, write_certificate, write_evidence, write_header, write_set, write_state,
    write_transactions,
};
use super::{Ledger, Tables};
use crate::block::{FinalBlock, GenesisBlock};
use crate::certificate::ValidatorSet;
use crate::ids::Digest;
use crate::light::FinalHeader;

/// Where a store begins that has no blocks below.
#[derive(Debug)]
pub struct Start<'s> {
    /// The chain's first block.
    pub genesis: &'s GenesisBlock,
    /// The lowest block of the store, and its last one as yet.
    pub block: &'s FinalBlock,
    /// Root of the state after it, which the caller compared with the header above.
    pub state_root: Digest,
    /// Headers of below after which another set votes, for light proofs.
    pub headers: &'s [FinalHeader],
    /// Sets that headers from the block on name.
    pub sets: &'s [ValidatorSet],
}

/// Tables that are being filled with a state. Without [`Restoring::finish`] they hold no chain.
pub struct Restoring<T> {
    tables: T,
}

impl<T: Tables> Restoring<T> {
    /// Fills empty tables.
    pub(in super::super) fn new(tables: T) -> Restoring<T> {
        Restoring { tables }
    }

    /// Writes a part of the state.
    pub fn put_state(&self, entries: Vec<StateEntry>) -> Result<(), StoreError> {
        let entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let mut writes = Writes::default();
        write_state(&mut writes, &entries)?;
        self.tables.apply(writes, None)
    }

    /// Writes where the chain begins; from then on the tables are a store.
    pub fn finish(self, start: &Start<'_>) -> Result<Ledger<T>, StoreError> {
        let (genesis, block) = (start.genesis.header(), start.block.header());
        let chain = StoredChain { chain_id: genesis.chain_id.clone(), genesis_hash: start.genesis.hash() };
        if block.chain_id != chain.chain_id {
            return Err(StoreError::ForeignBlock { got: block.chain_id.clone(), expected: chain.chain_id });
        }
        let tip = Tip {
            height: block.height,
            hash: start.block.hash(),
            timestamp_ms: block.timestamp_ms,
            state_root: start.state_root,
        };
        let mut writes = Writes::default();
        write_header(&mut writes, genesis, &chain.genesis_hash);
        for FinalHeader { header, certificate, validators } in start.headers {
            write_header(&mut writes, header, &header.hash());
            write_certificate(&mut writes, certificate);
            write_set(&mut writes, validators);
        }
        write_header(&mut writes, block, &tip.hash);
        write_certificate(&mut writes, start.block.certificate());
        write_evidence(&mut writes, start.block);
        write_transactions(&mut writes, start.block);
        write_attestations(&mut writes, start.block);
        start.sets.iter().chain([start.genesis.validators()]).for_each(|set| write_set(&mut writes, set));
        writes.put_borsh(Tree::Meta, schema::CHAIN.to_vec(), &(&chain.chain_id, &chain.genesis_hash));
        writes.put_borsh(Tree::Meta, schema::BASE.to_vec(), &block.height);
        writes.put_borsh(Tree::Meta, schema::TIP.to_vec(), &tip);
        let ledger = Ledger::over(self.tables, chain, tip)?;
        let mut lists = Lists::default();
        ledger.write_records(&mut writes, &mut lists, start.block, &mut BTreeMap::new())?;
        lists.write(&mut writes);
        ledger.tables.apply(writes, Some(&tip))?;
        Ok(Ledger { base: block.height, ..ledger })
    }
}
