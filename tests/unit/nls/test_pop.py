"""Signatures of the open API: the published vector, and everything that is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.nls import pop
from app.nls.pop import Nonces, PopError

VECTOR: Final = {
    "AccessKeyId": "testid",
    "Action": "DescribeRegions",
    "Format": "XML",
    "SignatureMethod": "HMAC-SHA1",
    "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
    "SignatureVersion": "1.0",
    "Timestamp": "2016-02-23T12:46:24Z",
    "Version": "2014-05-26",
}
"""nls-protocol.md 7.2; its secret is ``testsecret``."""

SENT_AT: Final = 1_456_231_584.0
"""VECTOR's time."""

ROA: Final = {
    "accept": "application/json",
    "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg==",
    "content-type": "application/octet-stream;charset=utf-8",
    "date": "Tue, 23 Feb 2016 12:46:24 GMT",
}
ROA_PATH: Final = "/pop/2018-05-18/tokens"


def refused(error: pytest.ExceptionInfo[PopError]) -> tuple[str, int]:
    return error.value.code, error.value.http_status


def request(**changes: str) -> dict[str, str]:
    """VECTOR with changes, signed; an empty value leaves the parameter out."""
    parameters = {name: value for name, value in {**VECTOR, **changes}.items() if value}
    return {"Signature": pop.sign_rpc("GET", parameters, "testsecret"), **parameters}


def test_the_published_vector() -> None:
    assert pop.sign_rpc("GET", VECTOR, "testsecret") == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="
    assert pop.rpc_string("GET", VECTOR) == (
        "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeRegions%26Format%3DXML"
        "%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"
        "%26SignatureVersion%3D1.0%26Timestamp%3D2016-02-23T12%253A46%253A24Z"
        "%26Version%3D2014-05-26"
    )


def test_canonical_is_sorted_by_bytes_and_encoded_by_rfc_3986() -> None:
    parameters = {"b": "a b*c~d+e/f", "Z": "字", "a": "", "Signature": "left out"}
    assert pop.canonical(parameters) == "Z=%E5%AD%97&a=&b=a%20b%2Ac~d%2Be%2Ff"


def test_a_good_request_passes() -> None:
    signed = pop.read_rpc("GET", request(), SENT_AT)
    assert signed.key_id == "testid"
    signed.verify("testsecret")


def test_a_plus_that_was_not_encoded_is_forgiven() -> None:
    parameters = request(SignatureNonce="3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf")
    assert "+" in parameters["Signature"]
    parameters["Signature"] = parameters["Signature"].replace("+", " ")
    pop.read_rpc("GET", parameters, SENT_AT).verify("testsecret")


@given(name=st.sampled_from(sorted(VECTOR)), value=st.text(min_size=1))
def test_every_parameter_is_signed(name: str, value: str) -> None:
    value = value.encode("utf-8", "replace").decode()
    if value == VECTOR[name]:
        return
    tampered = {**request(), name: value}
    with pytest.raises(PopError):
        pop.read_rpc("GET", tampered, SENT_AT).verify("testsecret")


@pytest.mark.parametrize("method", ["POST", "PUT", "get"])
def test_the_method_is_signed(method: str) -> None:
    with pytest.raises(PopError) as error:
        pop.read_rpc(method, request(), SENT_AT).verify("testsecret")
    assert refused(error) == ("SignatureDoesNotMatch", 400)


def test_a_wrong_secret_is_told_what_was_to_be_signed() -> None:
    with pytest.raises(PopError) as error:
        pop.read_rpc("GET", request(), SENT_AT).verify("testsecret2")
    assert refused(error) == ("SignatureDoesNotMatch", 400)
    assert error.value.text.endswith(f"server string to sign is:{pop.rpc_string('GET', VECTOR)}")
    assert "testsecret" not in error.value.text


def test_an_unknown_key_costs_as_much_as_a_wrong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest

    def counting(left: bytes, right: bytes) -> bool:
        compared.append(len(right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    signed = pop.read_rpc("GET", request(), SENT_AT)
    with pytest.raises(PopError) as unknown:
        signed.verify(None)
    with pytest.raises(PopError):
        signed.verify("wrong")
    assert refused(unknown) == ("InvalidAccessKeyId.NotFound", 404)
    assert compared == [28, 28]


def test_nobody_knows_the_secret_of_an_unknown_key() -> None:
    parameters = dict(VECTOR)
    for secret in ("", "None", pop._NO_SECRET):
        parameters["Signature"] = pop.sign_rpc("GET", parameters, secret)
        with pytest.raises(PopError):
            pop.read_rpc("GET", parameters, SENT_AT).verify(None)


@pytest.mark.parametrize("name", ["AccessKeyId", "SignatureNonce", "Timestamp", "Signature"])
def test_what_is_missing_is_named(name: str) -> None:
    for value in (None, ""):
        parameters = {**request(), name: value or ""}
        if value is None:
            del parameters[name]
        with pytest.raises(PopError) as error:
            pop.read_rpc("GET", parameters, SENT_AT)
        assert refused(error) == ("MissingParameter", 400)
        assert f'"{name}"' in error.value.text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SignatureMethod": "HMAC-SHA256"}, "InvalidParameter"),
        ({"AccessKeyId": "k" * 129}, "InvalidParameter"),
        ({"SignatureNonce": "n" * 129}, "InvalidParameter"),
        ({"Timestamp": "2016-02-23 12:46:24"}, "InvalidTimeStamp.Format"),
        ({"Timestamp": "2016-02-30T12:46:24Z"}, "InvalidTimeStamp.Format"),
        ({"Timestamp": "2016-02-23T12:31:23Z"}, "InvalidTimeStamp.Expired"),
        ({"Timestamp": "2016-02-23T13:01:25Z"}, "InvalidTimeStamp.Expired"),
        ({"Timestamp": "0001-01-01T00:00:00Z"}, "InvalidTimeStamp.Expired"),
    ],
)
def test_what_makes_no_sense(changes: dict[str, str], code: str) -> None:
    with pytest.raises(PopError) as error:
        pop.read_rpc("GET", request(**changes), SENT_AT)
    assert refused(error) == (code, 400)


@pytest.mark.parametrize("sent", ["2016-02-23T12:31:24Z", "2016-02-23T13:01:24Z"])
def test_a_clock_may_be_a_quarter_of_an_hour_off(sent: str) -> None:
    pop.read_rpc("GET", request(Timestamp=sent), SENT_AT).verify("testsecret")


def test_the_signature_method_may_be_left_out_and_in_any_case() -> None:
    for method in ("", "hmac-sha1"):
        pop.read_rpc("GET", request(SignatureMethod=method), SENT_AT).verify("testsecret")


def test_parameters_of_query_and_form_are_one_set() -> None:
    assert pop.merged([("a", "1"), ("b", "2"), ("a", "1")]) == {"a": "1", "b": "2"}
    with pytest.raises(PopError):
        pop.merged([("a", "1"), ("a", "2")])


def test_a_nonce_serves_once_for_each_key() -> None:
    nonces = Nonces()
    nonces.use(pop.read_rpc("GET", request(), SENT_AT), SENT_AT)
    nonces.use(pop.read_rpc("GET", request(AccessKeyId="other"), SENT_AT), SENT_AT)
    for later in (0, 1, 2 * pop.CLOCK_SKEW_S):  # as long as its time may be good
        with pytest.raises(PopError) as error:
            nonces.use(pop.read_rpc("GET", request(), SENT_AT), SENT_AT + later)
        assert refused(error) == ("SignatureNonceUsed", 400)


def test_nonces_are_bounded_and_forgotten() -> None:
    nonces = Nonces(limit=2)
    for number in range(2):
        nonces.use(pop.read_rpc("GET", request(SignatureNonce=f"{number}"), SENT_AT), SENT_AT)
    third = pop.read_rpc("GET", request(SignatureNonce="third"), SENT_AT)
    with pytest.raises(PopError) as error:
        nonces.use(third, SENT_AT)
    assert refused(error) == ("Throttling", 429)
    nonces.use(third, SENT_AT + 2 * pop.CLOCK_SKEW_S + 1)
    assert len(nonces._until) == 1


def test_roa_signs_the_lines_of_the_java_sdk() -> None:
    assert pop.roa_string("POST", ROA, ROA_PATH) == (
        "POST\napplication/json\n1B2M2Y8AsgTpgAmY7PhCfg==\n"
        "application/octet-stream;charset=utf-8\nTue, 23 Feb 2016 12:46:24 GMT\n"
        "/pop/2018-05-18/tokens"
    )
    by_hand = hmac.new(b"s", pop.roa_string("POST", ROA, ROA_PATH).encode(), hashlib.sha1).digest()
    assert pop.sign_roa("POST", ROA, ROA_PATH, "s") == base64.b64encode(by_hand).decode()


def roa(**changes: str) -> dict[str, str]:
    signature = pop.sign_roa("POST", ROA, ROA_PATH, "secret")
    return {**ROA, "authorization": f"acs key:{signature}", **changes}


def test_a_good_roa_request_passes() -> None:
    signed = pop.read_roa("POST", roa(), ROA_PATH, SENT_AT)
    assert signed.key_id == "key"
    signed.verify("secret")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"accept": "text/plain"}, "SignatureDoesNotMatch"),
        ({"date": "Tue, 23 Feb 2016 12:46:25 GMT"}, "SignatureDoesNotMatch"),
        ({"authorization": "acs key:wrong"}, "SignatureDoesNotMatch"),
        ({"authorization": "acs key"}, "MissingParameter"),
        ({"authorization": "acs " + "k" * 129 + ":x"}, "MissingParameter"),
        ({"date": ""}, "MissingParameter"),
        ({"date": "yesterday"}, "InvalidTimeStamp.Format"),
        ({"date": "Tue, 23 Feb 2016 14:46:24 GMT"}, "InvalidTimeStamp.Expired"),
    ],
)
def test_roa_refusals(changes: dict[str, str], code: str) -> None:
    with pytest.raises(PopError) as error:
        pop.read_roa("POST", roa(**changes), ROA_PATH, SENT_AT).verify("secret")
    assert refused(error) == (code, 400)


@given(date=st.text(max_size=40))
def test_any_date_is_read_or_refused(date: str) -> None:
    with pytest.raises(PopError):
        pop.read_roa("POST", roa(date=date), ROA_PATH, SENT_AT).verify("secret")


def test_the_answer_has_the_clouds_shape() -> None:
    assert pop.token_answer("0989F63E-5069", "tok", 1_893_456_000, "k") == {
        "NlsRequestId": "0989f63e5069",
        "RequestId": "0989F63E-5069",
        "ErrMsg": "",
        "Token": {"ExpireTime": 1_893_456_000, "Id": "tok", "UserId": "k"},
    }
