//! A DNS server whose answers a test scripts.

use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, QTYPE, RCODE, ResourceRecord, TYPE};

/// One question of a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DnsQuery {
    pub(crate) name: String,
    /// The record type: true for AAAA, false for A. Resolvers ask for no other.
    pub(crate) v6: bool,
    /// How many equal questions came before.
    pub(crate) before: usize,
}

/// The answer to one question.
pub(crate) enum DnsAnswer {
    /// The addresses of the queried family. If there are none, the answer is empty
    /// without an error: the name exists and has no such address.
    Addresses(Vec<IpAddr>),
    /// The same, this much later. Other answers do not wait for it.
    Delayed(Duration, Vec<IpAddr>),
    /// An error code.
    Fails(RCODE),
    /// No answer at all.
    Silence,
}

/// An answer with these addresses, in text form.
pub(crate) fn addresses(texts: &[&str]) -> DnsAnswer {
    let parsed = texts.iter().map(|text| text.parse().expect("an address"));
    DnsAnswer::Addresses(parsed.collect())
}

/// The server, on UDP port 53 of loopback. Needs a network namespace of the test's own.
pub(crate) struct NameServer {
    /// Locked while the script runs, so a query is recorded before its answer is sent.
    queries: Arc<Mutex<Vec<DnsQuery>>>,
}

impl NameServer {
    /// Answers every question with the result of this script.
    pub(crate) fn start(script: impl Fn(&DnsQuery) -> DnsAnswer + Send + 'static) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:53").expect("port 53");
        let queries = Arc::<Mutex<Vec<DnsQuery>>>::default();
        thread::spawn({
            let queries = Arc::clone(&queries);
            move || {
                let mut buffer = [0; 512];
                while let Ok((count, client)) = socket.recv_from(&mut buffer) {
                    let packet = Packet::parse(&buffer[..count]).expect("a DNS query");
                    let mut all = queries.lock().unwrap();
                    let query = parse(&packet, &all);
                    let answer = script(&query);
                    all.push(query);
                    drop(all);
                    let Some(reply) = reply(&packet, &answer) else {
                        continue;
                    };
                    let socket = socket.try_clone().expect("a socket");
                    let send = move || drop(socket.send_to(&reply, client));
                    match answer {
                        DnsAnswer::Delayed(delay, _) => drop(thread::spawn(move || {
                            thread::sleep(delay);
                            send();
                        })),
                        _ => send(),
                    }
                }
            }
        });
        NameServer { queries }
    }

    /// All questions so far.
    pub(crate) fn queries(&self) -> Vec<DnsQuery> {
        self.queries.lock().unwrap().clone()
    }

    /// How often a resolver has asked for addresses of this name.
    pub(crate) fn query_count(&self, name: &str, v6: bool) -> usize {
        count(&self.queries.lock().unwrap(), name, v6)
    }
}

/// Reads the first question of a packet; resolvers send one.
fn parse(packet: &Packet<'_>, all: &[DnsQuery]) -> DnsQuery {
    let question = &packet.questions[0];
    let name = question.qname.to_string();
    let v6 = question.qtype == QTYPE::TYPE(TYPE::AAAA);
    let before = count(all, &name, v6);
    DnsQuery { name, v6, before }
}

fn count(queries: &[DnsQuery], name: &str, v6: bool) -> usize {
    let same = |query: &&DnsQuery| query.name == name && query.v6 == v6;
    queries.iter().filter(same).count()
}

/// The packet to send; `None` for no answer.
fn reply(query: &Packet<'_>, answer: &DnsAnswer) -> Option<Vec<u8>> {
    let question = &query.questions[0];
    let v6 = question.qtype == QTYPE::TYPE(TYPE::AAAA);
    let mut reply = Packet::new_reply(query.id());
    reply.questions.push(question.clone());
    match answer {
        DnsAnswer::Silence => return None,
        DnsAnswer::Fails(code) => *reply.rcode_mut() = *code,
        DnsAnswer::Addresses(addresses) | DnsAnswer::Delayed(_, addresses) => {
            let of_family = addresses.iter().filter(|address| address.is_ipv6() == v6);
            let records = of_family.map(|address| {
                let data = match *address {
                    IpAddr::V4(address) => RData::A(A::from(address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA::from(address)),
                };
                ResourceRecord::new(question.qname.clone(), CLASS::IN, 1, data)
            });
            reply.answers.extend(records);
        }
    }
    Some(reply.build_bytes_vec_compressed().expect("a packet"))
}
