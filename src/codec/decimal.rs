//! Exact decimals to and from bytes and text: the only place that knows two's complement.
//!
//! Invariant: a number is carried over exactly or refused. Deliberately absent: rounding, and floats.

use std::ops::Deref;

use rust_decimal::Decimal;

/// A decimal survives a binary double and its shortest text unchanged up to this many significant digits
/// (IEEE 754 binary64, `DBL_DIG`); beyond it, digits may have been lost before the text was written.
const DIGITS_A_DOUBLE_KEEPS: usize = 15;

/// Up to the most decimals that a decimal has.
const POWERS_OF_TEN: [i128; 29] = {
    let mut powers = [1; 29];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = 10 * powers[at - 1];
        at += 1;
    }
    powers
};

/// The unscaled value as big-endian two's complement (Avro `decimal`, Connect `Decimal`) and its decimals.
///
/// # Errors
/// More than 28 digits, or more decimals than a decimal can hold.
pub fn from_bytes(bytes: &[u8], scale: i64) -> Result<Decimal, String> {
    let unscaled = unscaled(bytes).ok_or_else(|| "holds a decimal of more than 28 digits".to_string())?;
    let too_large = || format!("holds {unscaled} with {scale} decimals, more than 28 digits");
    if scale < 0 {
        // A negative scale is a count of zeros before the point (PostgreSQL's numeric(p,-s)).
        let zeros = u32::try_from(scale.unsigned_abs()).map_err(|_| too_large())?;
        let factor = 10i128.checked_pow(zeros).ok_or_else(too_large)?;
        let whole = unscaled.checked_mul(factor).ok_or_else(too_large)?;
        return Decimal::try_from_i128_with_scale(whole, 0).map_err(|_| too_large());
    }
    let scale = u32::try_from(scale).map_err(|_| too_large())?;
    Decimal::try_from_i128_with_scale(unscaled, scale).map_err(|_| too_large())
}

/// As `from_bytes`, without zeros at the end of the decimals.
pub fn shortest_from_bytes(bytes: &[u8], scale: u32) -> Result<Decimal, String> {
    if bytes.len() > 8 {
        return from_bytes(bytes, scale.into()).map(|number| number.normalize());
    }
    let sign = bytes.first().map_or(0, |first| i64::from(first.cast_signed() >> 7));
    let mut digits = bytes.iter().fold(sign, |digits, byte| digits << 8 | i64::from(*byte));
    let mut scale = scale;
    for (zeros, factor) in [(4, 10_000), (1, 10)] {
        while scale >= zeros && digits % factor == 0 {
            digits /= factor;
            scale -= zeros;
        }
    }
    Decimal::try_new(digits, scale).map_err(|error| error.to_string())
}

/// A whole number in two's complement, in as few bytes as it needs.
#[derive(Debug, Clone, Copy)]
pub struct Unscaled {
    bytes: [u8; 16],
    start: usize,
}

impl Deref for Unscaled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// `number` with exactly `scale` decimals, without its point.
///
/// # Errors
/// `number` has more decimals than `scale`, or does not fit 28 digits at that scale.
pub fn to_bytes(number: Decimal, scale: u32) -> Result<Unscaled, String> {
    let exact = if number.scale() <= scale {
        number
    } else {
        number.normalize()
    };
    let missing = scale
        .checked_sub(exact.scale())
        .ok_or_else(|| format!("{number} has more than {scale} decimals"))?;
    let factor = POWERS_OF_TEN.get(missing as usize);
    let unscaled = factor
        .and_then(|factor| exact.mantissa().checked_mul(*factor))
        .filter(|unscaled| unscaled.unsigned_abs() < POWERS_OF_TEN[28].unsigned_abs())
        .ok_or_else(|| format!("{number} has more than 28 digits at {scale} decimals"))?;
    // All bits after the first that tells it from its sign, and one for the sign.
    let bits = 129 - (unscaled ^ (unscaled >> 127)).leading_zeros() as usize;
    Ok(Unscaled {
        bytes: unscaled.to_be_bytes(),
        start: 16 - bits.div_ceil(8),
    })
}

/// Decimal text, as `decimal.handling.mode=string` writes it.
pub fn from_text(text: &str) -> Result<Decimal, String> {
    let trimmed = text.trim();
    let exact = if trimmed.contains(['e', 'E']) {
        Decimal::from_scientific(trimmed)
    } else {
        Decimal::from_str_exact(trimmed)
    };
    exact.map_err(|_| {
        format!(
            "holds {text:?}, which is not a decimal; if these are the base64 bytes of a decimal, declare \
             decimal_scale in the mapping or set the connector's decimal.handling.mode to string"
        )
    })
}

/// A JSON number. A database double reaches JSON as its shortest text, so more significant digits than a double
/// keeps cannot be told from lost ones: they are refused. Whole numbers are exact at any length.
pub fn from_number(text: &str) -> Result<Decimal, String> {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let is_whole = !text.contains(['.', 'e', 'E']);
    let digits = mantissa
        .bytes()
        .filter(u8::is_ascii_digit)
        .skip_while(|digit| *digit == b'0')
        .count();
    if !is_whole && digits > DIGITS_A_DOUBLE_KEEPS {
        return Err(format!(
            "holds the number {text}, more digits than a double keeps; set the connector's decimal.handling.mode \
             to string or precise"
        ));
    }
    from_text(text).map_err(|_| format!("holds the number {text}, which has more than 28 digits"))
}

fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let sign = if negative { 0xFF } else { 0 };
    let start = bytes.len().saturating_sub(16);
    let (extension, significant) = bytes.split_at(start);
    if extension.iter().any(|byte| *byte != sign) {
        return None;
    }
    let mut wide = [sign; 16];
    wide[16 - significant.len()..].copy_from_slice(significant);
    let value = i128::from_be_bytes(wide);
    // Cutting sign bytes must not have changed the sign.
    ((value < 0) == negative).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    #[test]
    fn bytes_are_the_shortest_twos_complement() {
        for (text, bytes) in [
            ("0", &[0x00][..]),
            ("1.27", &[0x7F]),
            ("1.28", &[0x00, 0x80]),
            ("-1.28", &[0x80]),
            ("-1.29", &[0xFF, 0x7F]),
            ("45000.50", &[0x44, 0xAA, 0x52]),
        ] {
            assert_eq!(&*to_bytes(decimal(text), 2).unwrap(), bytes, "{text}");
            assert_eq!(from_bytes(bytes, 2).unwrap(), decimal(text), "{text}");
        }
    }

    #[test]
    fn no_digit_is_lost_silently() {
        assert!(
            to_bytes(decimal("0.001"), 2)
                .unwrap_err()
                .contains("more than 2 decimals")
        );
        assert!(
            to_bytes(decimal("99999999999999999999999"), 6)
                .unwrap_err()
                .contains("28 digits")
        );
        assert!(from_bytes(&[0x7F; 17], 2).is_err());
        assert!(from_bytes(&[0x01], 40).is_err());
        assert!(from_bytes(&[0x01], i64::MIN).is_err());
        assert_eq!(from_bytes(&[0x05], -3).unwrap(), decimal("5000"));
        assert_eq!(from_bytes(&[], 2).unwrap(), Decimal::ZERO);
        assert_eq!(
            *to_bytes(decimal("1.2000000"), 2).unwrap(),
            [0x78],
            "trailing zeros are not digits"
        );
    }

    #[test]
    fn a_number_that_a_double_could_have_blurred_is_refused() {
        assert_eq!(from_number("100.5").unwrap(), decimal("100.5"));
        assert_eq!(from_number("1.5E3").unwrap(), decimal("1500"));
        assert_eq!(
            from_number("12345678901234567890").unwrap(),
            decimal("12345678901234567890")
        );
        assert!(from_number("1.2345678901234568E16").is_err());
        assert!(from_number("0.1234567890123456").is_err());
        assert!(from_text("NaN").is_err());
        assert!(from_text("RKog").unwrap_err().contains("decimal_scale"));
    }

    proptest! {
        #[test]
        fn bytes_round_trip(unscaled in -9_999_999_999_999_999_999_999_999_999i128..=9_999_999_999_999_999_999_999_999_999, scale in 0u32..=12) {
            let number = Decimal::from_i128_with_scale(unscaled, scale);
            let bytes = to_bytes(number, scale).unwrap();
            prop_assert_eq!(from_bytes(&bytes, i64::from(scale)).unwrap(), number);
            let shortest = shortest_from_bytes(&bytes, scale).unwrap();
            prop_assert_eq!((shortest, shortest.scale()), (number, number.normalize().scale()));
            if let [sign @ (0 | 0xFF), next, ..] = *bytes {
                prop_assert_ne!(sign >> 7, next >> 7, "a byte too many: {:?}", bytes);
            }
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..24), scale in any::<i64>()) {
            if let Ok(number) = from_bytes(&bytes, scale) {
                prop_assert_eq!(i64::from(number.scale()), scale.max(0));
            }
        }
    }
}
