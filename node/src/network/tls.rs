//! TLS 1.3 in which the node's key is the certificate: both sides show their raw public key (RFC 7250) and sign the
//! handshake with it. Who is at the other end is known before a byte of ours is read, and nobody stands in between.

use std::fmt;
use std::sync::Arc;

use aria_chain::ids::NodeId;
use aria_chain::keys::{NodeKey, Signature, verify_tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig, SignatureAlgorithm,
    SignatureScheme, version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// An ed25519 key as its SubjectPublicKeyInfo: these bytes, then the key (RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Both ends of TLS for one node.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// For the node of this key.
    pub(super) fn new(key: &Arc<NodeKey>) -> Tls {
        Tls::showing(key.node_id(), key)
    }

    /// Shows one key and signs with another, which only tests have reason to.
    pub(super) fn showing(shown: NodeId, key: &Arc<NodeKey>) -> Tls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let spki = [&SPKI_HEAD[..], shown.as_bytes()].concat();
        let own = CertifiedKey::new(vec![CertificateDer::from(spki)], Arc::new(Own(Arc::clone(key))));
        let (own, peers) = (Arc::new(own), Arc::new(AnyNode));
        let versions = "the provider has what TLS 1.3 needs";
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect(versions)
            .with_client_cert_verifier(Arc::clone(&peers) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&own))));
        // Every connection proves the keys anew.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect(versions)
            .dangerous()
            .with_custom_certificate_verifier(peers)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own)));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Tls { acceptor: TlsAcceptor::from(Arc::new(server)), connector: TlsConnector::from(Arc::new(client)) }
    }

    /// The end that listens. Returns who dialled.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, NodeId)> {
        identified(self.acceptor.accept(stream).await?.into())
    }

    /// The end that dials. Returns who answered.
    pub(super) async fn connect(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, NodeId)> {
        // A name that is never sent: the key is who it is.
        let name = ServerName::try_from("aria.invalid").expect("a name");
        identified(self.connector.connect(name, stream).await?.into())
    }
}

fn identified(stream: TlsStream<TcpStream>) -> std::io::Result<(TlsStream<TcpStream>, NodeId)> {
    let shown = stream.get_ref().1.peer_certificates().and_then(|keys| keys.first());
    let node = shown.and_then(|key| node_of_spki(key));
    node.map(|node| (stream, node)).ok_or_else(|| std::io::Error::other("the peer shows no key"))
}

fn node_of(key: &CertificateDer<'_>) -> Result<NodeId, Error> {
    node_of_spki(key).ok_or(Error::InvalidCertificate(rustls::CertificateError::BadEncoding))
}

/// The node of a key that a peer shows. There is one encoding of each: anything else is nobody.
pub fn node_of_spki(key: &[u8]) -> Option<NodeId> {
    let key = key.strip_prefix(&SPKI_HEAD)?;
    <[u8; 32]>::try_from(key).ok().map(NodeId::new)
}

/// This node's key, which signs.
#[derive(Clone)]
struct Own(Arc<NodeKey>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Own({})", self.0.node_id())
    }
}

impl SigningKey for Own {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Own {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.0.sign_tls(message);
        signature.map(|signature| signature.as_bytes().to_vec()).ok_or(Error::General("no handshake of TLS 1.3".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Any key is a node; what matters is that the other side has it.
#[derive(Debug)]
struct AnyNode;

impl AnyNode {
    fn check(
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let signature = <[u8; 64]>::try_from(signed.signature()).map(Signature::new);
        let is_signed = signed.scheme == SignatureScheme::ED25519
            && signature.is_ok_and(|signature| node_of(key).is_ok_and(|node| verify_tls(&node, message, &signature)));
        if is_signed {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(rustls::CertificateError::BadSignature))
        }
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        node_of(key).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        AnyNode::check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyNode {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        node_of(key).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        AnyNode::check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
