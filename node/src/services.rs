//! What the doors get from the node: [`NodeServices`] joins chain and backend.

use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::Instant,
};

use aria_chain::{
    consent::Consent,
    ids::{ModelId, NodeId, RecordId, TransactionId},
    keys::Signature,
    store::{Health, Store, StoreError},
    transaction::VerifiedTransaction,
    units::{Height, NanoAria, Timestamp},
};
use aria_inference::backend::Backend;
use aria_rpc::services::{
    AccountView, BanView, ConsentView, FaultView, GenerateCall, GenerateError, Generation, MempoolView, ModelCard,
    NodeStatus, Owed, PeerView, Readiness, Services, Submission, VerifyView, WaitingProof, WaitingTransaction,
};
use aria_runtime::{
    state::Reader,
    verify::{VerifyReport, verify_chain},
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use self::{answer::Place, orders::Orders};
use crate::{
    chain::Chain,
    config::NodeConfig,
    consent::{Governor, InForce},
    network::Network,
    pipeline::Pipeline,
    supervisor::Spawner,
};

pub(crate) mod answer;
pub mod gateway;
pub mod legacy;
mod orders;
mod payment;

/// A model that is loaded.
pub struct Served {
    /// What clients ask for.
    pub name: String,
    /// What runs it.
    pub backend: Arc<dyn Backend>,
    /// Seconds since 1970.
    pub loaded_s: u64,
}

/// The node, as its doors see it.
pub struct NodeServices {
    chain: Arc<Chain>,
    served: Arc<OnceLock<Served>>,
    governor: Arc<Governor>,
    spawner: Spawner,
    stop: CancellationToken,
    started: Instant,
    metrics: PrometheusHandle,
    queue_max: usize,
    client_fee: NanoAria,
    orders: Arc<Orders>,
    pipeline: Arc<Pipeline>,
}

impl NodeServices {
    /// Joins what is there; the model comes when it is loaded.
    pub fn new(
        (chain, pipeline): (Arc<Chain>, Arc<Pipeline>),
        (served, governor): (Arc<OnceLock<Served>>, Arc<Governor>),
        spawner: Spawner,
        stop: CancellationToken,
        metrics: PrometheusHandle,
        config: &NodeConfig,
    ) -> NodeServices {
        let (queue_max, client_fee) = (config.queue_max, config.client_fee);
        let (started, orders) = (Instant::now(), Arc::default());
        NodeServices {
            chain,
            served,
            governor,
            spawner,
            stop,
            started,
            metrics,
            queue_max,
            client_fee,
            orders,
            pipeline,
        }
    }

    /// Why nothing is written any more, if that is so.
    fn store_fault(&self) -> Option<String> {
        let Health::ReadOnly { reason } = self.chain.health() else { return None };
        Some(format!("nothing can be written since a failure: {reason}; repair the cause and start again"))
    }
}

impl Services for NodeServices {
    fn readiness(&self) -> Readiness {
        let not_ready = |reason: String| Readiness::NotReady { reason };
        if self.stop.is_cancelled() {
            return not_ready("the node is stopping".into());
        }
        if let Some(reason) = self.store_fault() {
            return not_ready(reason);
        }
        match self.served.get() {
            Some(_) => Readiness::Ready,
            None => not_ready("the model is being loaded".into()),
        }
    }

    fn models(&self) -> Vec<ModelCard> {
        let card = |served: &Served| {
            let info = served.backend.model();
            ModelCard {
                id: served.name.clone(),
                created: served.loaded_s,
                digest: info.digest.to_string(),
                arithmetic: info.arithmetic,
                context: info.context,
                parameters: info.hyper.multiplied_weights(),
                backend: served.backend.kind().name(),
            }
        };
        self.served.get().map(card).into_iter().collect()
    }

    fn generate(&self, call: GenerateCall) -> Result<Generation, GenerateError> {
        if let Some(reason) = self.store_fault() {
            return Err(GenerateError::StoreStopped { reason });
        }
        if let Readiness::NotReady { reason } = self.readiness() {
            return Err(GenerateError::NotReady { reason });
        }
        let served =
            self.served.get().ok_or_else(|| GenerateError::NotReady { reason: "the model is being loaded".into() })?;
        let (chain, governor, orders, pipeline) = (&self.chain, &self.governor, &self.orders, &self.pipeline);
        let place = Place { chain, governor, served, orders, pipeline };
        place.start(&self.spawner, self.client_fee, call)
    }

    fn owed(&self, requester: &NodeId) -> Vec<Owed> {
        self.orders.owed(requester, Timestamp::new(self.chain.clock.now_ms()))
    }

    fn receive(&self, record: &RecordId, receipt: Signature) -> Result<(), String> {
        let (proof, payload) = self.orders.receive(record, receipt)?;
        answer::acknowledge(&self.chain, proof, payload.as_ref())?;
        self.orders.settle(record);
        Ok(())
    }

    fn consent(&self) -> Option<ConsentView> {
        let view = |InForce { contract, is_revoked }| ConsentView { contract, is_revoked };
        self.governor.in_force().map(view)
    }

    fn set_consent(&self, fields: &Map<String, Value>) -> Result<Consent, String> {
        self.governor.set(fields).map_err(|error| error.to_string())
    }

    fn revoke_consent(&self) -> Result<(), String> {
        self.governor.revoke().map_err(|error| error.to_string())
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.chain.store)
    }

    fn status(&self) -> NodeStatus {
        let served = self.served.get();
        let load = served.map(|served| served.backend.load()).unwrap_or_default();
        let (ready, reason) = match self.readiness() {
            Readiness::Ready => (true, None),
            Readiness::NotReady { reason } => (false, Some(reason)),
        };
        NodeStatus {
            node_id: self.chain.key.node_id().to_string(),
            chain_id: self.chain.genesis.chain_id().to_string(),
            genesis_hash: self.chain.store.chain().genesis_hash.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            ready,
            reason,
            model: served.map(|served| served.name.clone()),
            backend: served.map(|served| served.backend.kind().name()),
            kernel: served.map(|served| served.backend.model().kernel.name()),
            threads: served.map(|_| self.governor.threads()),
            active: load.active,
            queued: load.queued,
            queue_max: self.queue_max,
            store_fault: match self.chain.health() {
                Health::Writing => None,
                Health::ReadOnly { reason } => Some(reason),
            },
            peers: self.chain.network.get().map_or(0, |network| network.peers().len()),
            behind: self.chain.behind.load(std::sync::atomic::Ordering::Relaxed),
            epoch_blocks: self.chain.genesis.params().epoch_blocks,
        }
    }

    fn peers(&self) -> (Option<std::net::SocketAddr>, Vec<PeerView>) {
        let Some(network) = self.chain.network.get() else { return (None, Vec::new()) };
        let view = |peer: crate::network::PeerInfo| PeerView {
            node_id: peer.node_id.to_string(),
            address: peer.address.to_string(),
            direction: if peer.is_dialled { "outbound" } else { "inbound" },
            connected_ms: u64::try_from(peer.since.as_millis()).unwrap_or(u64::MAX),
            bytes_received: peer.bytes.0,
            bytes_sent: peer.bytes.1,
            height: peer.height.map(aria_chain::units::Height::get),
            round_trip_us: peer.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        };
        (Some(network.address()), network.peers().into_iter().map(view).collect())
    }

    fn add_peer(&self, address: &str) -> Result<(), String> {
        let network = self.chain.network.get().ok_or("this node has no peers yet")?;
        let full = "too many addresses are named already; remove one first";
        network.dial(address.to_owned()).then_some(()).ok_or_else(|| full.to_owned())
    }

    fn remove_peer(&self, address: &str) -> Result<(), String> {
        let network = self.chain.network.get().ok_or("this node has no peers yet")?;
        network
            .leave(address)
            .then_some(())
            .ok_or_else(|| "was not added; `aria network ban` ends other connections".into())
    }

    fn ban_peer(&self, node: NodeId, time: std::time::Duration, reason: &str) -> Result<(), String> {
        let network = self.chain.network.get().ok_or("this node has no peers yet")?;
        network.ban(&node, reason, time);
        Ok(())
    }

    fn bans(&self) -> Vec<BanView> {
        let bans = self.chain.network.get().map(Network::bans).unwrap_or_default();
        bans.into_iter().map(|(node_id, left, reason)| BanView { node_id, reason, left }).collect()
    }

    fn tip_changes(&self) -> tokio::sync::watch::Receiver<Height> {
        self.chain.tip_changes()
    }

    fn submit(&self, what: Submission) -> Result<String, String> {
        let chain = &self.chain;
        match what {
            Submission::Proof(proof) => {
                let id = proof.record.id();
                let is_final = chain.store.record(&id).map_err(|error| error.to_string())?.is_some();
                if !is_final && !chain.mempool().contains(&id) {
                    let proof = proof.verify(chain.genesis.chain_id()).map_err(|error| error.to_string())?;
                    chain.check_includable(&proof)?;
                    chain.acknowledge(proof).map_err(|error| error.to_string())?;
                }
                Ok(id.to_string())
            }
            Submission::Transaction(transaction) => {
                let id = transaction.transaction.id();
                let is_final = chain.store.transaction(&id).map_err(|error| error.to_string())?.is_some();
                if !is_final && chain.transactions().get(&id).is_none() {
                    let order = transaction.verify(chain.genesis.chain_id()).map_err(|error| error.to_string())?;
                    chain.acknowledge_order(order)?;
                }
                Ok(id.to_string())
            }
        }
    }

    fn waiting_transaction(&self, id: &TransactionId) -> Option<WaitingTransaction> {
        let pool = self.chain.transactions();
        let found = pool.iter().find(|(_, transaction)| transaction.id() == *id);
        found.map(waiting_transaction)
    }

    fn waiting_transactions_after(&self, after: Option<&TransactionId>, limit: usize) -> Vec<WaitingTransaction> {
        let pool = self.chain.transactions();
        // Who was shown last may be in a block by now; then the page begins anew.
        let after = after.filter(|after| pool.get(after).is_some());
        let rest = pool.iter().skip_while(|(_, one)| after.is_some_and(|after| one.id() != *after));
        rest.skip(usize::from(after.is_some())).take(limit).map(waiting_transaction).collect()
    }

    fn waiting(&self, record: &aria_chain::ids::RecordId) -> Option<WaitingProof> {
        let mempool = self.chain.mempool();
        let found = mempool.iter().find(|(_, proof)| proof.record_id() == *record);
        found.map(|(since, proof)| WaitingProof { proof: proof.clone(), since_ms: since.get() })
    }

    fn waiting_after(&self, after: Option<&aria_chain::ids::RecordId>, limit: usize) -> Vec<WaitingProof> {
        let mempool = self.chain.mempool();
        // Who was shown last may be in a block by now; then the page begins anew.
        let after = after.filter(|after| mempool.contains(after));
        let rest = mempool.iter().skip_while(|(_, proof)| after.is_some_and(|after| proof.record_id() != *after));
        rest.skip(usize::from(after.is_some()))
            .take(limit)
            .map(|(since, proof)| WaitingProof { proof: proof.clone(), since_ms: since.get() })
            .collect()
    }

    fn simulate(&self, what: Submission) -> Result<String, String> {
        let chain_id = self.chain.genesis.chain_id();
        match what {
            Submission::Proof(proof) => {
                let proof = proof.verify(chain_id).map_err(|error| error.to_string())?;
                self.chain.check_includable(&proof)?;
                Ok(proof.record_id().to_string())
            }
            Submission::Transaction(transaction) => {
                let order = transaction.verify(chain_id).map_err(|error| error.to_string())?;
                self.chain.check_orderable(&order)?;
                Ok(order.id().to_string())
            }
        }
    }

    fn mempool(&self) -> MempoolView {
        let (status, limits) = {
            let mempool = self.chain.mempool();
            (mempool.status(), mempool.limits())
        };
        MempoolView {
            pending: status.proofs,
            bytes: status.bytes,
            pending_max: limits.proofs_max,
            oldest_ms: status.oldest.map(|oldest| oldest.get()),
            transactions: self.chain.transactions().len(),
            transactions_max: aria_chain::limits::MEMPOOL_TRANSACTIONS_MAX,
        }
    }

    fn params(&self) -> serde_json::Value {
        serde_json::to_value(self.chain.genesis.params()).expect("parameters are numbers")
    }

    fn account(&self, node: &NodeId) -> Result<Option<AccountView>, StoreError> {
        let view = self.chain.view();
        let reader = Reader(&view);
        let Some(account) = reader.account(node).map_err(state_error)? else { return Ok(None) };
        let epoch = self.chain.genesis.params().epoch_of(self.chain.store.tip()?.height);
        Ok(Some(AccountView {
            node_id: node.to_string(),
            balance: account.balance.to_string(),
            bond: account.bond.to_string(),
            unbonding: account.unbonding.to_string(),
            rewards_total: account.rewards_total.to_string(),
            nonce: account.nonce,
            next_nonce: self.chain.transactions().next_nonce(node, account.nonce),
            work: u64::try_from(reader.work(epoch, node).map_err(state_error)?.total()).unwrap_or(u64::MAX),
        }))
    }

    fn model_name(&self, model: &ModelId) -> Result<Option<String>, StoreError> {
        let view = self.chain.view();
        Ok(Reader(&view).model(model).map_err(state_error)?.map(|model| model.name))
    }

    fn verify(&self, from: Height, to: Option<Height>) -> Result<VerifyView, StoreError> {
        let to = to.unwrap_or(self.chain.store.tip()?.height);
        let stop = self.stop.clone();
        let mut go_on = |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        Ok(verify_view(&verify_chain(&*self.chain.store, &self.chain.genesis, from, to, &mut go_on)))
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn stop(&self) {
        self.stop.cancel();
    }
}

fn waiting_transaction((since, transaction): (Timestamp, &VerifiedTransaction)) -> WaitingTransaction {
    WaitingTransaction { transaction: transaction.clone(), since_ms: since.get() }
}

/// A report as the doors and the command line show it.
pub fn verify_view(report: &VerifyReport) -> VerifyView {
    let fault = report.fault.as_ref().map(|(height, fault)| {
        let debug = format!("{fault:?}");
        let rule = debug.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
        FaultView { height: height.get(), rule: rule.to_owned(), message: fault.to_string() }
    });
    VerifyView {
        ok: fault.is_none() && !report.is_stopped,
        from: report.from.get(),
        to: report.to.get(),
        blocks: report.blocks,
        records: report.records,
        fault,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn state_error(error: aria_runtime::state::StateError) -> StoreError {
    StoreError::Damaged { place: "state".into(), reason: error.to_string() }
}
