//! Port URLs: `driver:head,key=value,...`, in that order, the head only where the driver has one.

use std::cell::RefCell;
use std::time::Duration;

use crate::port::PortError;

/// A URL taken apart. Options are taken one by one; [`Url::finish`] refuses what nobody took.
#[derive(Debug)]
pub(crate) struct Url<'a> {
    text: &'a str,
    scheme: &'a str,
    rest: &'a str,
    head: &'a str,
    options: RefCell<Vec<(&'a str, &'a str)>>,
    known: RefCell<Vec<String>>,
}

impl<'a> Url<'a> {
    pub(crate) fn parse(text: &'a str) -> Url<'a> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        Url::parts(text, scheme, rest, rest)
    }

    /// The same URL with only `options` as its options and head: for drivers that wrap another URL.
    pub(crate) fn narrowed(&self, options: &'a str) -> Url<'a> {
        Url::parts(self.text, self.scheme, self.rest, options)
    }

    fn parts(text: &'a str, scheme: &'a str, rest: &'a str, list: &'a str) -> Url<'a> {
        let mut parts = list.split(',').filter(|part| !part.is_empty()).peekable();
        let head = parts.next_if(|part| !part.contains('=')).unwrap_or("");
        let options = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        Url { text, scheme, rest, head, options: RefCell::new(options), known: RefCell::default() }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    pub(crate) fn scheme(&self) -> &'a str {
        self.scheme
    }

    /// Everything behind the driver's colon.
    pub(crate) fn rest(&self) -> &'a str {
        self.rest
    }

    /// The name before the options, which must be there.
    pub(crate) fn head(&self, what: &str) -> Result<&'a str, PortError> {
        if self.head.is_empty() {
            return Err(self.bad(format!("{what} is missing"), format!("write {}:{what}", self.scheme)));
        }
        Ok(self.head)
    }

    /// The value of option `key`; an option written twice is left over and refused.
    pub(crate) fn take(&self, key: &str) -> Option<&'a str> {
        self.known.borrow_mut().push(key.to_owned());
        let mut options = self.options.borrow_mut();
        let at = options.iter().position(|option| option.0 == key)?;
        Some(options.remove(at).1)
    }

    /// A whole number within `range`.
    pub(crate) fn number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, PortError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let mend = || format!("write a whole number from {} to {}", range.start(), range.end());
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| self.bad(format!("{key}={text}"), mend()))
    }

    /// An option without a value.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, PortError> {
        match self.take(key) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(value) => Err(self.bad(format!("{key}={value}"), format!("write {key} alone, or nothing"))),
        }
    }

    /// A probability.
    pub(crate) fn probability(&self, key: &str) -> Result<Option<f64>, PortError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let value: Option<f64> = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        value.map(Some).ok_or_else(|| {
            self.bad(format!("{key}={text}"), "write a probability from 0 to 1, as in 0.02".into())
        })
    }

    /// A time as in `250us`, `1.5ms`, `2s`.
    pub(crate) fn duration(&self, key: &str) -> Result<Option<Duration>, PortError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let units = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
        let value = with_unit(text, &units).filter(|seconds| *seconds <= 3600.0).map(Duration::from_secs_f64);
        value.map(Some).ok_or_else(|| {
            self.bad(
                format!("{key}={text}"),
                "write a time up to an hour with its unit: 250us, 1.5ms, 2s".into(),
            )
        })
    }

    /// A rate in bits a second, as in `10M`, `2.5Gbit`.
    pub(crate) fn rate(&self, key: &str) -> Result<Option<f64>, PortError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let units = [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)];
        let value =
            with_unit(text.strip_suffix("bit").unwrap_or(text), &units).filter(|bits| *bits >= 1000.0);
        value.map(Some).ok_or_else(|| {
            self.bad(format!("{key}={text}"), "write bits a second, at least 1k: 500k, 10M, 2.5Gbit".into())
        })
    }

    /// Refuses options that nobody took.
    pub(crate) fn finish(&self) -> Result<(), PortError> {
        match self.options.borrow().first() {
            None => Ok(()),
            Some((key, _)) => {
                let known = self.known.borrow().join(", ");
                let mend = if known.is_empty() {
                    "it takes none".to_owned()
                } else {
                    format!("it takes {known}, each once")
                };
                Err(self.bad(format!("option {key:?} does not fit"), mend))
            }
        }
    }

    pub(crate) fn bad(&self, what: String, mend: String) -> PortError {
        PortError::BadOption { url: self.text.to_owned(), what, mend }
    }
}

/// A finite, non-negative number with one of `units` behind it.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = units.iter().find(|entry| entry.0 == unit)?.1;
    let value: f64 = number.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_options_come_apart() {
        let url = Url::parse("af_packet:eth0,queues=2");
        assert_eq!((url.scheme(), url.head("IFACE").unwrap()), ("af_packet", "eth0"));
        assert_eq!(url.number("queues", 1..=8).unwrap(), Some(2));
        url.finish().unwrap();
    }

    #[test]
    fn errors_name_the_value_and_the_mend() {
        type Check = fn(&Url<'_>) -> Option<PortError>;
        let cases: [(&str, Check, &str); 5] = [
            ("tap:", |url| url.head("NAME").err(), "\"tap:\": NAME is missing; write tap:NAME"),
            (
                "x:a,n=9",
                |url| url.number("n", 1..=8).err(),
                "\"x:a,n=9\": n=9; write a whole number from 1 to 8",
            ),
            (
                "x:loss=2",
                |url| url.probability("loss").err(),
                "\"x:loss=2\": loss=2; write a probability from 0 to 1, as in 0.02",
            ),
            (
                "x:delay=5",
                |url| url.duration("delay").err(),
                "\"x:delay=5\": delay=5; write a time up to an hour with its unit: 250us, 1.5ms, 2s",
            ),
            (
                "x:nope=1",
                |url| url.finish().err(),
                "\"x:nope=1\": option \"nope\" does not fit; it takes none",
            ),
        ];
        for (text, check, want) in cases {
            let error = check(&Url::parse(text)).expect(text);
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn times_and_rates_have_units() {
        let url = Url::parse("x:a=1.5ms,b=20us,c=10Mbit,d=2.5G");
        assert_eq!(url.duration("a").unwrap(), Some(Duration::from_micros(1500)));
        assert_eq!(url.duration("b").unwrap(), Some(Duration::from_micros(20)));
        assert_eq!(url.rate("c").unwrap(), Some(1e7));
        assert_eq!(url.rate("d").unwrap(), Some(2.5e9));
        for bad in ["x:t=-1ms", "x:t=nanms", "x:t=ms", "x:t=1e999s", "x:t=4000s", "x:t="] {
            assert!(Url::parse(bad).duration("t").is_err(), "{bad}");
        }
    }

    #[test]
    fn an_option_written_twice_is_refused() {
        let url = Url::parse("x:a=1,a=2");
        url.take("a");
        assert!(url.finish().is_err());
    }
}
