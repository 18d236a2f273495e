//! A contract as it is kept: in the store as a head and pages, and, when it is long, in memory as well.
//!
//! ```text
//! c <tenant>/<deal>                          the head: what each step changes, and the latest facts and entries
//! h <tenant>/<deal>/<number, big-endian>     a page: earlier facts and entries, written once
//! ```
//!
//! Invariants: pages and head together are the contract, in the order of arrival and of issue; what a step writes does not
//! grow with the deal's history, and a record of the changelog holds [`PAGE_AT_MOST`] entries. What is in memory is what was
//! staged or committed: it is taken out before a step and put back after, so that a step that fails leaves nothing.
//! Absent: what a contract means (`revenue`), and its bytes (`codec`).

use std::collections::HashMap;

use crate::codec::Refused;
use crate::codec::contract_store::{self, Paged};
use crate::revenue::contract::Contract;
use crate::stream::store::Entry;

/// Facts and entries that make a page.
const PAGE: usize = 32;
/// Entries of a page, where a step issues more: each takes some 150 bytes.
const PAGE_AT_MOST: usize = 1_000;

/// Facts and entries of the long contracts that one partition keeps in memory, each some 500 bytes; at most twice as many,
/// or one contract that is longer.
const WARM: usize = 1_000;

/// A contract, and how much of it is on pages.
pub(super) struct Kept {
    pub(super) contract: Contract,
    pub(super) paged: Paged,
}

pub(super) fn head_key(key: &[u8]) -> Vec<u8> {
    [b"c ".as_slice(), key].concat()
}

fn page_key(key: &[u8], number: u32) -> Vec<u8> {
    [b"h ".as_slice(), key, b"/", &number.to_be_bytes()].concat()
}

impl Kept {
    /// Reads a contract from its head; `read` gives the entries of a range of the store, up to a number, and `refuse` says
    /// what to make of bytes that are not a contract's.
    pub(super) fn read<E>(
        key: &[u8],
        head: &[u8],
        read: impl FnOnce(&[u8], &[u8], usize) -> Result<Vec<Entry>, E>,
        refuse: impl Fn(Refused) -> E,
    ) -> Result<Kept, E> {
        let (mut contract, pages) = contract_store::decode(head).map_err(&refuse)?;
        let mut paged = Paged::default();
        if pages > 0 {
            let (mut facts, mut issued) = (Vec::new(), Vec::new());
            for (_, page) in read(&page_key(key, 0), &page_key(key, pages), pages as usize)? {
                let (mut of_page, mut issued_of_page) = contract_store::decode_page(&page).map_err(&refuse)?;
                facts.append(&mut of_page);
                issued.append(&mut issued_of_page);
                paged.pages += 1;
            }
            if paged.pages != pages {
                let message = format!("{} of {pages} pages are there", paged.pages);
                return Err(refuse(Refused::new("bad_store", message)));
            }
            (paged.facts, paged.issued) = (facts.len(), issued.len());
            facts.append(&mut contract.facts);
            issued.append(&mut contract.issued);
            (contract.facts, contract.issued) = (facts, issued);
        }
        Ok(Kept { contract, paged })
    }

    /// What to write of it: its head and, when that has grown to one, a page or several.
    pub(super) fn write(&mut self, key: &[u8]) -> Result<Vec<Entry>, Refused> {
        let (contract, mut paged) = (&self.contract, self.paged);
        let mut entries = Vec::new();
        while contract.facts.len() - paged.facts + contract.issued.len() - paged.issued >= PAGE {
            let to = Paged {
                pages: paged.pages + 1,
                facts: contract.facts.len(),
                issued: contract.issued.len().min(paged.issued + PAGE_AT_MOST),
            };
            let page = contract_store::encode_page(contract, paged, to)?;
            entries.push((page_key(key, paged.pages), page));
            paged = to;
        }
        entries.push((head_key(key), contract_store::encode(contract, paged)?));
        self.paged = paged;
        Ok(entries)
    }
}

/// Long contracts that were used lately, by key. Those that were not used while as many others were are let go.
#[derive(Default)]
pub(super) struct Warm {
    young: HashMap<Vec<u8>, Kept>,
    old: HashMap<Vec<u8>, Kept>,
    /// Facts and entries of the young ones when they were put in.
    weight: usize,
}

impl Warm {
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Kept> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Keeps a contract. One without pages is read as quickly as it is found here.
    pub(super) fn put(&mut self, key: &[u8], kept: Kept) {
        if kept.paged.pages == 0 {
            return;
        }
        self.weight += kept.contract.facts.len() + kept.contract.issued.len();
        self.young.insert(key.to_vec(), kept);
        if self.weight > WARM {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
    }
}
