//! The accept loop of the HTTP doors, over TCP or a unix socket: bounded connections, a limit on the time of a request's
//! head, and an end that lets open answers finish, but not for ever.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Time for a client to send the head of a request: slower ones hold connections for others.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Time for open answers to end after a stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for want of file descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Something that connections come from.
pub trait Listener: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Waits for the next one.
    fn next(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&mut self) -> io::Result<Self::Stream> {
        let (stream, _) = self.accept().await?;
        // Tokens are small and must not wait for each other.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&mut self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

/// Serves `router` until `stop`, at most `connections_max` connections at once; more wait in the system's queue. Returns when all have ended,
/// at the latest ten seconds after the stop.
pub async fn serve(mut listener: impl Listener, router: Router, stop: CancellationToken, connections_max: usize) {
    let places = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let dropped = CancellationToken::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.next().await)
        };
        let (place, stream) = tokio::select! { biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let (connection, dropped) = (graceful.watch(connection.into_owned()), dropped.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                ended = connection => if let Err(error) = ended { tracing::debug!(%error, "a connection ended early") },
                () = dropped.cancelled() => {}
            }
        });
    }
    drop(listener);
    if timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::info!("open answers did not end in time and are dropped");
        dropped.cancel();
    }
}
