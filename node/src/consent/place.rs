//! Where a node is: told to the local network alone, and only while the contract allows it.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::network::Network;

/// Tells the local network of this node, and hears of others there, while that is allowed.
pub async fn look_around(network: Network, mut may_tell: watch::Receiver<bool>, stop: CancellationToken) {
    loop {
        let telling = stop.child_token();
        if *may_tell.borrow_and_update() {
            if let Err(error) = network.look_around(telling.clone()) {
                tracing::warn!(%error, "nobody on the local network is found by itself");
            }
        } else {
            tracing::warn!("the consent says allow_geo_tracking false: --mdns is without effect until it is true");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = may_tell.changed() => if changed.is_err() { return },
        }
        telling.cancel();
    }
}
