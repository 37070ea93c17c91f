//! futures-rustls over our streams: a protocol of another crate, which uses them through the traits
//! of futures-io alone.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};
use netpoller::{Runtime, TcpListener, TcpStream, UnixStream, spawn, time};

/// A server that answers to `localhost`, and a client that trusts it.
fn ends() -> (TlsAcceptor, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server).into(), Arc::new(client).into())
}

fn run(future: impl Future<Output = ()>) {
    let watched = async { time::timeout(Duration::from_secs(30), future).await };
    let ended = Runtime::new().unwrap().block_on(watched);
    ended.expect("it hangs");
}

/// More than both sockets' buffers and a record hold: each side has to wait for the other.
const LENGTH: usize = 1 << 20;

/// Everything there and back, encrypted, with an end of file each way.
async fn there_and_back<S>(ours: S, theirs: S)
where
    S: futures_lite::AsyncRead + futures_lite::AsyncWrite + Unpin + 'static,
{
    let (server, client) = ends();
    let serving = spawn(async move {
        let mut tls = server.accept(theirs).await.unwrap();
        let mut all = Vec::new();
        tls.read_to_end(&mut all).await.unwrap();
        tls.write_all(&all).await.unwrap();
        tls.close().await.unwrap();
    });
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = client.connect(name, ours).await.unwrap();
    let sent: Vec<u8> = (0..LENGTH).map(|at| ((at * 31) >> 3) as u8).collect();
    tls.write_all(&sent).await.unwrap();
    tls.close().await.unwrap();
    let mut back = Vec::new();
    tls.read_to_end(&mut back).await.unwrap();
    assert!(back == sent, "{} bytes came back", back.len());
    serving.await.unwrap();
}

#[test]
fn tls_runs_over_a_tcp_stream() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ours = TcpStream::connect(address).await.unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        there_and_back(ours, theirs).await;
    });
}

#[test]
fn tls_runs_over_a_unix_stream() {
    run(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        there_and_back(ours, theirs).await;
    });
}
