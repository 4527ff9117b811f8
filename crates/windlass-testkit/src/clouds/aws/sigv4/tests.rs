//! The published vectors, and what must not pass.

use super::*;

const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

struct Vector {
    request: Message,
    header: String,
}

/// One of the published requests.
fn vector(line: &str, more: &[(&str, &str)], body: &str, signed: &str, signature: &str) -> Vector {
    let (method, target) = line.split_once(' ').expect("method and target");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let iam = query.starts_with("Action=ListUsers");
    let (host, service) = if iam { ("iam.amazonaws.com", "iam") } else { ("example.amazonaws.com", "service") };
    let mut headers = vec![("host", host), ("x-amz-date", "20150830T123600Z")];
    headers.extend(more);
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
    Vector {
        request: Message { method, path, query, headers, body: body.as_bytes().to_vec() },
        header: format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, \
             SignedHeaders={signed}, Signature={signature}"
        ),
    }
}

/// From AWS's test suite of Signature Version 4, and the example of the IAM user guide.
fn vectors() -> Vec<Vector> {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let form_utf8 = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    let plain = "host;x-amz-date";
    let trimmed = [("my-header1", "value1"), ("my-header2", "\"a   b   c\"")];
    vec![
        vector("GET /", &[], "", plain, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        vector("POST /", &[], "", plain, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        vector(
            "GET /?Param2=value2&Param1=value1",
            &[],
            "",
            plain,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        vector("GET /?ሴ=bar", &[], "", plain, "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        vector("GET /ሴ", &[], "", plain, "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        vector(
            "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            &[],
            "",
            plain,
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        vector(
            "POST /?Param1=value1",
            &[],
            "",
            plain,
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
        vector(
            "GET /",
            &trimmed,
            "",
            "host;my-header1;my-header2;x-amz-date",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        vector(
            "POST /",
            &[("my-header1", "VALUE1")],
            "",
            "host;my-header1;x-amz-date",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        vector(
            "POST /",
            &[("x-amz-security-token", TOKEN)],
            "",
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
        vector(
            "POST /",
            &[form],
            "Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        vector(
            "GET /?Action=ListUsers&Version=2010-05-08",
            &[form_utf8],
            "",
            "content-type;host;x-amz-date",
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        ),
    ]
}

fn verify(vector: &Vector, secret: &str, now: &str) -> Result<(), Problem> {
    Presented::parse(&vector.header)?.verify(&vector.request, secret, now.parse().expect("a time"))
}

#[test]
fn the_published_vectors_verify() {
    for vector in vectors() {
        let what = format!("{} {}?{}", vector.request.method, vector.request.path, vector.request.query);
        assert_eq!(verify(&vector, KEY, "2015-08-30T12:38:00Z"), Ok(()), "{what}");
    }
}

#[test]
fn one_changed_byte_does_not_verify() {
    let now = "2015-08-30T12:36:00Z";
    for mut vector in vectors() {
        assert_eq!(verify(&vector, &KEY.replace('w', "v"), now), Err(Problem::Wrong));
        vector.request.body.push(b'x');
        assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
        vector.request.body.pop();
        vector.request.headers[0].1.push('x');
        assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
        vector.request.headers[0].1.pop();
        vector.request.query.push_str("&a=b");
        assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
    }
    let mut vector = vectors().remove(0);
    vector.header = vector.header.replace("us-east-1", "us-west-1");
    assert_eq!(verify(&vector, KEY, now), Err(Problem::Wrong));
    vector.header = vector.header.replace("host;x-amz-date", "x-amz-date");
    assert_eq!(verify(&vector, KEY, now), Err(Problem::NotSigned("host".to_owned())));
}

#[test]
fn old_signatures_do_not_verify() {
    let vector = vectors().remove(0);
    for (now, is_good) in [
        ("2015-08-30T12:30:59Z", false),
        ("2015-08-30T12:31:00Z", true),
        ("2015-08-30T12:41:00Z", true),
        ("2015-08-30T12:41:01Z", false),
    ] {
        let verdict = verify(&vector, KEY, now);
        assert_eq!(verdict.is_ok(), is_good, "{now}");
        assert!(is_good || matches!(verdict, Err(Problem::Skewed(_))), "{now}: {verdict:?}");
    }
}
