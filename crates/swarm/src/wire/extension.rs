//! What extended messages (BEP 10) carry: the extended handshake, and `xg`, the extension by which
//! our own nodes grant each other turns instead of waiting for chokers.
//!
//! Both are bencoded dictionaries; fields nobody here knows are skipped, so either side may be
//! newer. In the extended handshake, beside BEP 10's own `m`, `p`, `reqq` and `v`:
//!
//! | key | value |
//! |---|---|
//! | `m.ut_metadata` | the id for `ut_metadata` messages (BEP 9, see [`metadata`](super::metadata)) |
//! | `metadata_size` | bytes of the `info` dictionary, if the sender has it and hands it out |
//! | `m.ut_pex` | the same for `ut_pex` messages (BEP 11, see [`pex`](super::pex)) |
//! | `m.xg` | the id by which the sender wants to be sent `xg` messages; 0 or absent: none |
//! | `xg.block` | largest block in bytes the sender serves and takes |
//! | `xg.rate` | the sender's uplink in bytes a second, 0 if it does not know |
//! | `xg.seed` | 1 if the sender has every piece; it says so to nobody else until all were sent once |
//!
//! An `xg` message, all keys optional, those present being meant together:
//!
//! | key | value |
//! |---|---|
//! | `grant` | bytes the receiver may now request, choked or not; 0 takes back all grants unserved |
//! | `piece` | which piece the grant is for; absent: whatever the receiver wants |
//! | `unused` | bytes of grants the sender will not use: requests before this message are all |
//! | `load` | 0 to 255: how full the sender's hands are, of what it can receive at a time |
//! | `rate` | the sender's uplink, as in the handshake, refreshed |
//! | `lost` | a piece the sender announced and cannot read any more |
//! | `wrong` | a piece that came from the receiver alone, and was wrong |

use crate::bencode::{BencodeError, Decoder, Encoder, Limits};
use alloc::string::String;
use alloc::vec::Vec;

/// The id of the extended handshake (BEP 10).
pub const HELLO_ID: u8 = 0;

/// The id by which we ask others to send us `xg` messages.
pub const XG_ID: u8 = 1;

/// The extended handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The id to send `xg` messages with, if the peer knows them.
    pub xg_id: Option<u8>,
    /// The id to send `ut_metadata` messages with, if the peer knows them.
    pub metadata_id: Option<u8>,
    /// Bytes of the `info` dictionary, if the peer has it.
    pub metadata_len: Option<u64>,
    /// The id to send `ut_pex` messages with, if the peer wants them.
    pub pex_id: Option<u8>,
    /// The peer's listening TCP port.
    pub port: Option<u16>,
    /// How many requests the peer lets wait.
    pub reqq: Option<u32>,
    /// The client's name, shortened to 64 bytes, for people.
    pub client: Option<String>,
    /// Largest block in bytes; 0 if not said.
    pub block: u32,
    /// Uplink in bytes a second; 0 if not known.
    pub rate: u64,
    /// Whether the peer has every piece.
    pub seed: bool,
}

impl Hello {
    /// The payload of the extended handshake.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            d.key("m").dict(|m| {
                if let Some(id) = self.metadata_id {
                    m.key("ut_metadata").uint(id.into());
                }
                if let Some(id) = self.pex_id {
                    m.key("ut_pex").uint(id.into());
                }
                if let Some(id) = self.xg_id {
                    m.key("xg").uint(id.into());
                }
            });
            if let Some(len) = self.metadata_len {
                d.key("metadata_size").uint(len);
            }
            if let Some(port) = self.port {
                d.key("p").uint(port.into());
            }
            if let Some(reqq) = self.reqq {
                d.key("reqq").uint(reqq.into());
            }
            if let Some(client) = &self.client {
                d.key("v").bytes(client.as_bytes());
            }
            if self.xg_id.is_some() || self.block > 0 || self.rate > 0 || self.seed {
                d.key("xg").dict(|xg| {
                    xg.key("block").uint(self.block.into());
                    xg.key("rate").uint(self.rate);
                    xg.key("seed").uint(self.seed.into());
                });
            }
        });
        encoder.finish()
    }

    /// Reads an extended handshake.
    ///
    /// # Errors
    /// What is wrong with the notation, or with the type or range of a field we read.
    pub fn decode(payload: &[u8]) -> Result<Hello, BencodeError> {
        let mut hello = Hello::default();
        let mut decoder = Decoder::new(payload, LENIENT)?;
        decoder.dict(|d, key| hello.field(d, key))?;
        Ok(hello)
    }

    fn field(&mut self, d: &mut Decoder<'_>, key: &[u8]) -> Result<(), BencodeError> {
        match key {
            b"m" => d.dict(|d, key| {
                let id = match key {
                    b"ut_metadata" => &mut self.metadata_id,
                    b"ut_pex" => &mut self.pex_id,
                    b"xg" => &mut self.xg_id,
                    _ => return Ok(()),
                };
                *id = u8::try_from(d.uint()?).ok().filter(|&id| id != 0);
                Ok::<(), BencodeError>(())
            })?,
            // Some write 0, or less, for none.
            b"metadata_size" => self.metadata_len = u64::try_from(d.int()?).ok().filter(|&n| n > 0),
            b"p" => self.port = u16::try_from(d.uint()?).ok(),
            b"reqq" => self.reqq = Some(saturated(d.uint()?)),
            b"v" => {
                let name = d.bytes()?;
                self.client = Some(String::from_utf8_lossy(&name[..name.len().min(64)]).into());
            }
            b"xg" => d.dict(|d, key| {
                match key {
                    b"block" => self.block = saturated(d.uint()?),
                    b"rate" => self.rate = d.uint()?,
                    b"seed" => self.seed = d.uint()? != 0,
                    _ => {}
                }
                Ok::<(), BencodeError>(())
            })?,
            _ => {}
        }
        Ok(())
    }
}

/// A message of our own extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xg {
    /// Leave to request.
    pub grant: Option<Grant>,
    /// Bytes of grants given back.
    pub unused: Option<u64>,
    /// How full the sender's hands are.
    pub load: Option<u8>,
    /// The sender's uplink in bytes a second.
    pub rate: Option<u64>,
    /// A piece that can no longer be had from the sender.
    pub lost: Option<u32>,
    /// A piece that can be had from the sender as it comes in.
    pub coming: Option<Coming>,
    /// A piece that came from the receiver alone, and was wrong: it may want to look at its disk.
    pub wrong: Option<u32>,
}

/// A piece of which the sender passes on what it receives, before it knows that it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    /// Which.
    pub piece: u32,
    /// How many connections its bytes have crossed from a node that has it whole: 1 or more.
    pub hops: u8,
}

/// Leave to request some bytes, choked or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How many. 0 takes back every grant that is not served yet.
    pub bytes: u64,
    /// Of which piece; `None` leaves the choice to the receiver.
    pub piece: Option<u32>,
}

impl Xg {
    /// The payload of the extended message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            let mut field = |key, value: Option<u64>| {
                if let Some(value) = value {
                    d.key(key).uint(value);
                }
            };
            field("coming", self.coming.map(|coming| coming.piece.into()));
            field("grant", self.grant.map(|grant| grant.bytes));
            field("hops", self.coming.map(|coming| coming.hops.into()));
            field("load", self.load.map(u64::from));
            field("lost", self.lost.map(u64::from));
            field("piece", self.grant.and_then(|grant| grant.piece).map(u64::from));
            field("rate", self.rate);
            field("unused", self.unused);
            field("wrong", self.wrong.map(u64::from));
        });
        encoder.finish()
    }

    /// Reads an extended message that came with the id of `xg`.
    ///
    /// # Errors
    /// What is wrong with the notation, or with the type or range of a field we read.
    pub fn decode(payload: &[u8]) -> Result<Xg, BencodeError> {
        let mut xg = Xg::default();
        let (mut piece, mut hops) = (None, 1);
        let mut decoder = Decoder::new(payload, LENIENT)?;
        decoder.dict(|d, key| {
            match key {
                b"coming" => xg.coming = Some(Coming { piece: saturated(d.uint()?), hops: 1 }),
                b"hops" => hops = u8::try_from(d.uint()?).unwrap_or(u8::MAX).max(1),
                b"grant" => xg.grant = Some(Grant { bytes: d.uint()?, piece: None }),
                b"load" => xg.load = Some(u8::try_from(d.uint()?).unwrap_or(u8::MAX)),
                b"lost" => xg.lost = Some(saturated(d.uint()?)),
                b"piece" => piece = Some(saturated(d.uint()?)),
                b"rate" => xg.rate = Some(d.uint()?),
                b"unused" => xg.unused = Some(d.uint()?),
                b"wrong" => xg.wrong = Some(saturated(d.uint()?)),
                _ => {}
            }
            Ok::<(), BencodeError>(())
        })?;
        if let Some(grant) = &mut xg.grant {
            grant.piece = piece;
        }
        if let Some(coming) = &mut xg.coming {
            coming.hops = hops;
        }
        Ok(xg)
    }
}

/// Some clients write their extended handshake with keys out of order.
pub(super) const LENIENT: Limits = Limits { keys_ascend: false, ..Limits::NETWORK };

fn saturated(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_strangers_hello_is_read_past_what_we_do_not_know() {
        let hello = Hello::decode(
            b"d12:complete_agoi1e1:md11:lt_donthavei7e11:ut_metadatai2e6:ut_pexi1ee4:reqqi2000e\
              11:upload_onlyi1e1:v18:libtorrent/2.0.8.06:yourip4:\x7f\0\0\x01e",
        );
        let wanted = Hello {
            metadata_id: Some(2),
            pex_id: Some(1),
            reqq: Some(2000),
            client: Some("libtorrent/2.0.8.0".into()),
            ..Hello::default()
        };
        assert_eq!(hello, Ok(wanted));
    }

    #[test]
    fn ours_is_written_as_documented() {
        let hello = Hello {
            xg_id: Some(XG_ID),
            metadata_id: Some(3),
            metadata_len: Some(31235),
            pex_id: Some(2),
            port: Some(6881),
            reqq: Some(250),
            client: Some("EZIO".into()),
            block: 1 << 20,
            rate: 125_000_000,
            seed: true,
        };
        let bytes = b"d1:md11:ut_metadatai3e6:ut_pexi2e2:xgi1ee13:metadata_sizei31235e1:pi6881e4:reqqi250e1:v4:EZIO\
              2:xgd5:blocki1048576e4:ratei125000000e4:seedi1eee";
        assert_eq!(hello.encode(), bytes);
        assert_eq!(Hello::decode(bytes), Ok(hello));
    }

    #[test]
    fn a_newer_node_may_say_more() {
        let xg = Xg::decode(b"d5:granti5e4:rackl1:ae7:subhaved1:ai1eee");
        let grant = Some(Grant { bytes: 5, piece: None });
        assert_eq!(xg, Ok(Xg { grant, ..Xg::default() }));
        assert!(Xg::decode(b"d5:grant1:xe").is_err());
        assert!(Xg::decode(b"d5:granti-1ee").is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            grant in any::<Option<(u32, Option<u32>)>>(), unused in any::<Option<u32>>(),
            load in any::<Option<u8>>(), rate in any::<Option<u32>>(), lost in any::<Option<u32>>(),
            coming in any::<Option<(u32, u8)>>(), wrong in any::<Option<u32>>(),
        ) {
            let coming = coming.map(|(piece, hops)| Coming { piece, hops: hops.max(1) });
            let grant = grant.map(|(bytes, piece)| Grant { bytes: bytes.into(), piece });
            let (unused, rate) = (unused.map(u64::from), rate.map(u64::from));
            let xg = Xg { grant, unused, load, rate, lost, coming, wrong };
            prop_assert_eq!(Xg::decode(&xg.encode()), Ok(xg));
        }

        #[test]
        fn noise_is_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Hello::decode(&bytes), Xg::decode(&bytes));
        }
    }
}
