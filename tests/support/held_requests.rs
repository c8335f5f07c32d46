//! A proxy to one broker that holds requests back, as a broker that is frozen
//! does: they arrive later, beside what the client sends meanwhile.
//!
//! It knows of Kafka's protocol only that each request has a length and begins
//! with the number of its API.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::eventually;
use super::kafka_cluster::Link;

/// `EndTxn`, which commits or aborts a transaction.
pub const END_TXN: i16 = 26;

/// The proxy; it forwards everything until it is told to hold requests back.
#[derive(Debug)]
pub struct HeldRequests(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The API whose requests are held back.
    api: Option<i16>,
    held: Vec<HeldRequest>,
}

/// A request, the connection to the broker on which it arrives, and the responses
/// on that connection.
#[derive(Debug)]
struct HeldRequest {
    frame: Vec<u8>,
    broker: TcpStream,
    responses: Receiver<Vec<u8>>,
}

impl HeldRequests {
    /// Listens at the address that the broker advertises.
    pub fn open(link: Link) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = TcpListener::bind(link.advertised).expect("a free port");
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let broker = TcpStream::connect(link.listener).expect("a running broker");
                let state = Arc::clone(&shared);
                thread::spawn(move || relay(&client, &broker, &state));
            }
        });
        Self(state)
    }

    /// Holds back every request of this API from now on, and with it all that
    /// follows on its connection.
    pub fn hold(&self, api: i16) {
        lock(&self.0).api = Some(api);
    }

    /// Forwards new requests again. What is held stays held.
    pub fn forward(&self) {
        lock(&self.0).api = None;
    }

    /// Waits until this many requests are held.
    pub fn wait_for(&self, count: usize) {
        eventually("requests are held", || {
            (lock(&self.0).held.len() >= count).then_some(())
        });
    }

    /// Lets the oldest held request arrive. Returns the error code of the
    /// response, if that is one of `EndTxn` before version 3.
    pub fn release(&self) -> i16 {
        let mut request = lock(&self.0).held.remove(0);
        request
            .broker
            .write_all(&request.frame)
            .expect("a connection");
        // Earlier requests on the connection have responses too.
        let is_answer = |response: &Vec<u8>| response[4..8] == request.frame[8..12];
        let response = eventually("the broker answers", || {
            request.responses.try_iter().find(is_answer)
        });
        // After the length and the correlation ID: the throttle time.
        i16::from_be_bytes([response[12], response[13]])
    }
}

/// Forwards both directions until one ends.
fn relay(client: &TcpStream, broker: &TcpStream, state: &Mutex<State>) {
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let (sender, responses) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = forward_responses(broker, client, &sender);
            let _ = client.shutdown(Shutdown::Both);
        });
        if forward_requests(client, broker, state, responses).is_err() {
            let _ = broker.shutdown(Shutdown::Both);
        }
    });
}

/// Forwards requests until one is held or the client closes the connection.
fn forward_requests(
    mut client: &TcpStream,
    mut broker: &TcpStream,
    state: &Mutex<State>,
    responses: Receiver<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let frame = read_frame(&mut client)?;
        let mut state = lock(state);
        if state.api == Some(i16::from_be_bytes([frame[4], frame[5]])) {
            let broker = broker.try_clone()?;
            state.held.push(HeldRequest {
                frame,
                broker,
                responses,
            });
            return Ok(());
        }
        drop(state);
        broker.write_all(&frame)?;
    }
}

/// Forwards responses to the client, if it is still there, and to whoever holds a
/// request of this connection.
fn forward_responses(
    mut broker: &TcpStream,
    mut client: &TcpStream,
    holder: &Sender<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let frame = read_frame(&mut broker)?;
        let _ = client.write_all(&frame);
        let _ = holder.send(frame);
    }
}

/// Reads one request or response, with its length before it.
fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + usize::try_from(length).expect("a small frame"), 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
