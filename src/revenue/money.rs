//! Currencies and how their amounts are rounded.
//!
//! An amount is a [`Decimal`] in the currency that its owner names; it is never a float. Invariant: every amount
//! that leaves this room is a multiple of its currency's minor unit, and every amount that enters lies within
//! [`MAX_AMOUNT`], so that sums and products of a deal stay far inside the 28 digits of `Decimal`.
//!
//! Deliberately absent: conversion (rates are facts, see `reference`), formatting with symbols, and any currency
//! that is not in ISO 4217's list of active codes.

use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};

/// The largest amount accepted from a fact, in units of its currency: 10^15.
pub const MAX_AMOUNT: Decimal = Decimal::from_parts(2_764_472_320, 232_830, 0, false, 0);
/// The largest quantity accepted from a fact: 10^12.
pub const MAX_QUANTITY: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0);
/// The largest exchange rate accepted from a fact: 10^9.
pub const MAX_RATE: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);

/// An ISO 4217 currency, with the exponent of its minor unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: [u8; 3],
    exponent: u8,
}

impl Currency {
    /// The currency of a code such as `USD`; `None` when ISO 4217 has no such active code. Case matters.
    pub fn parse(code: &str) -> Option<Currency> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        let lists = [(EXPONENT_2, 2), (EXPONENT_0, 0), (EXPONENT_3, 3), (EXPONENT_4, 4)];
        let listed = |list: &str| list.as_bytes().chunks(4).any(|entry| entry.starts_with(&bytes));
        let (_, exponent) = lists.into_iter().find(|(list, _)| listed(list))?;
        Some(Currency { code: bytes, exponent })
    }

    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.code).unwrap_or("???")
    }

    /// Decimals of the minor unit: JPY 0, USD 2, KWD 3, CLF 4.
    pub fn exponent(&self) -> u32 {
        self.exponent.into()
    }

    /// Rounds half-up (away from zero) to the minor unit.
    pub fn round(&self, amount: Decimal) -> Decimal {
        amount.round_dp_with_strategy(self.exponent(), RoundingStrategy::MidpointAwayFromZero)
    }

    /// `total * part / whole`, rounded as [`Currency::round`] does; zero when `whole` is zero.
    pub fn share(&self, total: Decimal, part: Decimal, whole: Decimal) -> Decimal {
        self.share_of_small(total, part, whole)
            .unwrap_or_else(|| self.round(proportion(total, part, whole)))
    }

    /// The same in whole numbers, where they are small enough for a processor's own: a quotient of decimals has 28 digits,
    /// which a share in minor units does not need.
    fn share_of_small(&self, total: Decimal, part: Decimal, whole: Decimal) -> Option<Decimal> {
        let small = |number: i128| i64::try_from(number).ok();
        let shift = i64::from(self.exponent() + whole.scale()) - i64::from(total.scale() + part.scale());
        let factor = 10i128.checked_pow(u32::try_from(shift.abs()).ok()?)?;
        let product = i128::from(small(total.mantissa())?) * i128::from(small(part.mantissa())?);
        let (over, under) = match shift >= 0 {
            true => (product.checked_mul(factor)?, whole.mantissa()),
            false => (product, whole.mantissa().checked_mul(factor)?),
        };
        let negative = (over < 0) != (under < 0);
        let over = u64::try_from(over.unsigned_abs()).ok()?;
        let under = u64::try_from(under.unsigned_abs()).ok()?;
        // Half a unit and more is a unit, away from zero.
        let units = over.checked_div(under)? + u64::from(over % under >= under.div_ceil(2));
        let units = i64::try_from(units).ok()?;
        Some(Decimal::new(if negative { -units } else { units }, self.exponent()))
    }

    /// The minor unit as an amount: 0.01 for USD.
    pub fn unit(&self) -> Decimal {
        Decimal::new(1, self.exponent())
    }

    /// True when the amount has no more decimals than the currency.
    pub fn holds(&self, amount: Decimal) -> bool {
        self.round(amount) == amount
    }

    /// The amount as text, with exactly the currency's decimals: `10000.00`, `-5`, `1.250`.
    pub fn format(&self, amount: Decimal) -> String {
        let mut rounded = self.round(amount);
        rounded.rescale(self.exponent());
        if rounded.is_zero() {
            rounded.set_sign_positive(true);
        }
        rounded.to_string()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Splits `total` in proportion to `weights` by largest remainder: floors first, then one unit each to the largest
/// fractions, earlier index first. The parts sum to `total` exactly. All weights zero: equal weights.
pub fn largest_remainder(total: Decimal, weights: &[Decimal], currency: Currency) -> Vec<Decimal> {
    if weights.is_empty() {
        return Vec::new();
    }
    let sum: Decimal = weights.iter().sum();
    let equal = Decimal::ONE / Decimal::from(weights.len() as u64);
    let exact: Vec<Decimal> = weights
        .iter()
        .map(|weight| match sum.is_zero() {
            true => total * equal,
            false => proportion(total, *weight, sum),
        })
        .collect();
    let unit = currency.unit();
    let mut parts: Vec<Decimal> = exact
        .iter()
        .map(|part| part.round_dp_with_strategy(currency.exponent(), RoundingStrategy::ToNegativeInfinity))
        .collect();
    let mut left = total - parts.iter().sum::<Decimal>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|a, b| (exact[*b] - parts[*b]).cmp(&(exact[*a] - parts[*a])).then(a.cmp(b)));
    for index in order.iter().cycle().take(parts.len() * 2) {
        if left < unit {
            break;
        }
        parts[*index] += unit;
        left -= unit;
    }
    parts
}

/// `total * part / whole`, multiplying first so that exact results stay exact; zero when `whole` is zero.
pub fn proportion(total: Decimal, part: Decimal, whole: Decimal) -> Decimal {
    if whole.is_zero() {
        return Decimal::ZERO;
    }
    if part == whole {
        return total;
    }
    match total.checked_mul(part) {
        Some(product) => product / whole,
        None => total * (part / whole),
    }
}

const EXPONENT_0: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const EXPONENT_3: &str = "BHD IQD JOD KWD LYD OMR TND";
const EXPONENT_4: &str = "CLF UYW";
const EXPONENT_2: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN \
    BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS \
    GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA \
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD \
    RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN \
    UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_ten() {
        assert_eq!(MAX_AMOUNT, Decimal::from(1_000_000_000_000_000u64));
        assert_eq!(MAX_QUANTITY, Decimal::from(1_000_000_000_000u64));
        assert_eq!(MAX_RATE, Decimal::from(1_000_000_000u64));
    }

    #[test]
    fn exponents_follow_iso_4217() {
        for (code, exponent) in [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ZWG", 2)] {
            assert_eq!(Currency::parse(code).map(|c| c.exponent()), Some(exponent), "{code}");
        }
        for code in ["usd", "XXX", "", "EURO", "U S", " "] {
            assert_eq!(Currency::parse(code), None, "{code}");
        }
    }

    #[test]
    fn rounds_half_up_at_the_exponent() {
        let usd = Currency::parse("USD").unwrap();
        assert_eq!(usd.format(Decimal::new(12_345, 3)), "12.35");
        assert_eq!(usd.format(Decimal::new(-12_345, 3)), "-12.35");
        assert_eq!(usd.format(Decimal::new(-1, 3)), "0.00");
        assert_eq!(Currency::parse("JPY").unwrap().format(Decimal::new(5, 1)), "1");
        assert_eq!(Currency::parse("KWD").unwrap().format(Decimal::ONE), "1.000");
    }

    #[test]
    fn a_share_is_the_rounded_proportion() {
        let usd = Currency::parse("USD").unwrap();
        let number = |text: &str| Decimal::from_str_exact(text).unwrap();
        for (total, part, whole, share) in [
            ("100", "1", "8", "12.50"),
            ("0.01", "1", "2", "0.01"),
            ("-0.01", "1", "2", "-0.01"),
            ("0.01", "49", "99", "0.00"),
            ("0.03", "-1", "2", "-0.02"),
            ("10", "1", "0", "0"),
            ("99999999999999.99", "33.333333333333", "100", "33333333333333.00"),
            ("1234567890123456789012.34", "1", "3", "411522630041152263004.11"),
        ] {
            assert_eq!(
                usd.share(number(total), number(part), number(whole)),
                number(share),
                "{total} {part} {whole}"
            );
        }
        // Small numbers of all scales, signs and halves: each as the long way has it.
        let mut seen = 0;
        for code in ["JPY", "USD", "KWD", "CLF"] {
            let currency = Currency::parse(code).unwrap();
            for total in (-2_000..2_000).step_by(37) {
                for (part, whole) in [
                    (1, 2),
                    (3, 8),
                    (-5, 16),
                    (7, -12),
                    (755_160, 9_061_920),
                    (31, 365),
                    (12, 12),
                ] {
                    for scales in [(0, 0, 0), (2, 0, 0), (3, 1, 2), (4, 6, 0), (0, 2, 6)] {
                        let (total, part, whole) = (
                            Decimal::new(total, scales.0),
                            Decimal::new(part, scales.1),
                            Decimal::new(whole, scales.2),
                        );
                        let long = currency.round(proportion(total, part, whole));
                        assert_eq!(
                            currency.share_of_small(total, part, whole),
                            Some(long),
                            "{total} {part} {whole}"
                        );
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 4 * 109 * 7 * 5);
    }

    #[test]
    fn largest_remainder_gives_the_published_parts() {
        let usd = Currency::parse("USD").unwrap();
        let parts = |total: i64, weights: &[i64]| {
            let weights: Vec<Decimal> = weights.iter().map(|w| Decimal::from(*w)).collect();
            largest_remainder(Decimal::from(total), &weights, usd)
                .iter()
                .map(|p| usd.format(*p))
                .collect::<Vec<_>>()
        };
        assert_eq!(parts(100, &[22, 28, 15]), ["33.84", "43.08", "23.08"]);
        assert_eq!(parts(100, &[50, 25, 75]), ["33.33", "16.67", "50.00"]);
        assert_eq!(parts(-100, &[1, 1, 1]).len(), 3);
        assert_eq!(parts(1, &[0, 0, 0]), ["0.34", "0.33", "0.33"]);
    }
}
