//! The grammar, one pass over the text.
//!
//! ```text
//! selectors := selector ("," selector)*
//! selector  := fieldpath [operator value]
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z0-9_]+
//! operator  := "==" | "!=" | "~="
//! value     := quoted | [^\s,]+
//! quoted    := a Go string in ", and for ~= in / or | too
//! ```

use super::{FILTER_MAX_BYTES, FilterError, Selector, Test, compile};

/// Reads one filter; none of its selectors may fail. An empty text has none, so it means everything.
pub(super) fn selectors(text: &str) -> Result<Vec<Selector>, FilterError> {
    if text.len() > FILTER_MAX_BYTES {
        return Err(FilterError::Limit { what: "a filter's length in bytes", limit: FILTER_MAX_BYTES });
    }
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = Parser { text, at: 0 };
    let mut selectors = vec![parser.selector()?];
    loop {
        match parser.next()? {
            None => return Ok(selectors),
            Some(',') => selectors.push(parser.selector()?),
            Some(_) => return Err(parser.error("a comma is expected")),
        }
    }
}

/// Which quotes a text may stand in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Double,
    /// Slashes and bars too, which save escapes in patterns.
    OfPatterns,
}

struct Parser<'t> {
    text: &'t str,
    /// Start of the next character.
    at: usize,
}

impl Parser<'_> {
    fn selector(&mut self) -> Result<Selector, FilterError> {
        let mut path = vec![self.field()?];
        while self.peek() == Some('.') {
            self.at += 1;
            path.push(self.field()?);
        }
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Selector { path, test: Test::Present });
        }
        let test = match self.operator()?.as_str() {
            "==" => Test::Equal(self.value(Quotes::Double)?),
            "!=" => Test::NotEqual(self.value(Quotes::Double)?),
            "~=" => Test::Matches(compile(&self.value(Quotes::OfPatterns)?)),
            _ => return Err(self.error("the operators are ==, != and ~=")),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<Vec<u8>, FilterError> {
        self.skip_space();
        match self.peek() {
            Some('"') => self.quoted(),
            Some(first) if is_field(first) => Ok(self.while_(is_field).into_bytes()),
            Some(_) | None => Err(self.error("a field is expected")),
        }
    }

    fn operator(&mut self) -> Result<String, FilterError> {
        self.skip_space();
        Ok(self.while_(is_operator))
    }

    fn value(&mut self, quotes: Quotes) -> Result<Vec<u8>, FilterError> {
        self.skip_space();
        match self.peek() {
            Some('"') => self.quoted(),
            Some('/' | '|') if quotes == Quotes::OfPatterns => self.quoted(),
            Some('/' | '|') => Err(self.error("only a pattern may stand in these quotes")),
            None | Some(',' | '.') => Err(self.error("a value is expected")),
            Some(first) if is_operator(first) || !is_value(first) => Err(self.error("a value is expected")),
            Some(_) => Ok(self.while_(is_value).into_bytes()),
        }
    }

    /// A text in quotes, escapes and all. The first character is the quote.
    fn quoted(&mut self) -> Result<Vec<u8>, FilterError> {
        let unfinished = FilterError::Syntax { at: self.at, what: "the quotes do not close" };
        let quote = self.next()?.ok_or_else(|| unfinished.clone())?;
        let mut bytes = Vec::new();
        loop {
            match self.next()?.ok_or_else(|| unfinished.clone())? {
                '\n' => return Err(unfinished),
                '\\' => self.escape(quote, &mut bytes)?,
                end if end == quote => return Ok(bytes),
                plain => push(&mut bytes, plain),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), FilterError> {
        let wrong = FilterError::Syntax { at: self.at, what: "no such escape" };
        let Some(letter) = self.next()? else { return Err(wrong) };
        let byte = match letter {
            'a' => 7,
            'b' => 8,
            't' => b'\t',
            'n' => b'\n',
            'v' => 11,
            'f' => 12,
            'r' => b'\r',
            '\\' => b'\\',
            same if same == quote => same as u8,
            'x' => u8::try_from(self.digits(16, 2).ok_or_else(|| wrong.clone())?).map_err(|_| wrong)?,
            '0'..='7' => {
                self.at -= 1;
                u8::try_from(self.digits(8, 3).ok_or_else(|| wrong.clone())?).map_err(|_| wrong)?
            }
            'u' | 'U' => {
                let count = if letter == 'u' { 4 } else { 8 };
                let code = self.digits(16, count).filter(|code| *code <= u32::from(char::MAX)).ok_or(wrong)?;
                // Half of a surrogate pair is written as the replacement character.
                push(bytes, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                return Ok(());
            }
            _ => return Err(wrong),
        };
        bytes.push(byte);
        Ok(())
    }

    fn digits(&mut self, base: u32, count: usize) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + count)?;
        // `from_str_radix` would take a sign.
        if !digits.chars().all(|digit| digit.is_digit(base)) {
            return None;
        }
        self.at += count;
        u32::from_str_radix(digits, base).ok()
    }

    fn while_(&mut self, is_part: fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        let part = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        self.at += part.len();
        part.to_owned()
    }

    fn skip_space(&mut self) {
        self.while_(char::is_whitespace);
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Result<Option<char>, FilterError> {
        let Some(next) = self.peek() else { return Ok(None) };
        if matches!(next, '\0' | char::REPLACEMENT_CHARACTER) {
            return Err(self.error("not a character of a filter"));
        }
        self.at += next.len_utf8();
        Ok(Some(next))
    }

    fn error(&self, what: &'static str) -> FilterError {
        FilterError::Syntax { at: self.at, what }
    }
}

fn push(bytes: &mut Vec<u8>, char: char) {
    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

fn is_field(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_operator(c: char) -> bool {
    matches!(c, '=' | '!' | '~')
}

fn is_value(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control() && c != char::REPLACEMENT_CHARACTER
}
