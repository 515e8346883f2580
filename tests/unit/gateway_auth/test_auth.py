"""Who gets in, who does not, and what is said to them."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.utils import base64url_encode

from gateway.auth import Authenticator, Principal, tenant_id_of
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied, Unauthenticated
from tests.unit.gateway_auth.conftest import NOW, Door


def refusal(authenticator: Authenticator, token: str | None) -> tuple[str, str]:
    with pytest.raises(Unauthenticated) as caught:
        authenticator.authenticate(None if token is None else f"Bearer {token}")
    return caught.value.reason, caught.value.message


def b64(value: Any) -> str:
    return base64url_encode(json.dumps(value).encode()).decode()


def test_a_good_token_speaks_for_its_tenant(door: Door) -> None:
    principal = door.authenticator().authenticate(f"Bearer {door.token(jti='t1')}")
    expected = hashlib.sha256(b'["local","acme"]').hexdigest()
    assert principal == Principal(
        "local", "acme", expected, "user", frozenset({"chat"}), "t1", NOW + 600,
        attributes=("user:user",),
    )  # fmt: skip
    principal.require("chat")
    with pytest.raises(PermissionDenied) as caught:
        principal.require("chat", "tasks")
    assert caught.value.reason == "SCOPE_MISSING"


def test_the_tenant_is_the_subject_by_default(door: Door) -> None:
    principal = door.authenticator().authenticate(f"bearer  {door.token(tenant=...)}")
    assert (principal.tenant, principal.subject) == ("user", "user")


def test_tenant_ids_keep_consumer_and_tenant_apart() -> None:
    ids = {tenant_id_of("a", "bc"), tenant_id_of("ab", "c"), tenant_id_of('a","b', "c")}
    assert len(ids) == 3
    assert tenant_id_of("局", "東京") == hashlib.sha256('["局","東京"]'.encode()).hexdigest()


@pytest.mark.parametrize("value", [None, "", "Basic dXNlcjpwYXNz", "Bearer", "Bearer   "])
def test_no_token(door: Door, value: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        door.authenticator().authenticate(value)
    assert (caught.value.reason, caught.value.message) == ("TOKEN_MISSING", "Unauthorized")


def test_refusals_read_like_kongs(door: Door) -> None:
    gate = door.authenticator()
    good = door.token()
    stranger = ec.generate_private_key(ec.SECP256R1())
    forged = jwt.encode(door.claims(), stranger, algorithm="ES256", headers={"kid": door.kid})
    assert refusal(gate, forged) == ("TOKEN_INVALID", "Invalid signature")
    assert refusal(gate, good[:-4] + "AAAA") == ("TOKEN_INVALID", "Invalid signature")
    assert refusal(gate, door.token(exp=int(NOW) - 60)) == ("TOKEN_EXPIRED", "exp: token expired")
    assert refusal(gate, door.token(exp=...)) == ("TOKEN_INVALID", "exp: must be a number")
    assert refusal(gate, door.token({"kid": "other"}))[1] == "No credentials found for given 'kid'"
    assert refusal(gate, "abc")[1] == "Bad token; invalid JSON"
    assert refusal(gate, door.token(nbf=int(NOW) + 60))[1] == "nbf: token not valid yet"
    assert refusal(gate, door.token(iss="elsewhere"))[1] == "Invalid 'iss'"
    without_kid = jwt.encode(door.claims(), stranger, algorithm="ES256")
    assert refusal(gate, without_kid)[1] == "No mandatory 'kid' in claims"


def test_alg_none_is_refused(door: Door) -> None:
    for alg in ("none", "None", "nOnE", "", None, 5, ["ES256"]):
        token = f"{b64({'alg': alg, 'kid': door.kid})}.{b64(door.claims())}."
        assert refusal(door.authenticator(), token) == ("TOKEN_INVALID", "Bad token; invalid alg")


def test_hs256_signed_with_the_public_key_is_refused(door: Door) -> None:
    document = yaml.safe_load(door.keyring.rendered.read_text())
    public = document["consumers"][0]["jwt_secrets"][0]["rsa_public_key"].encode()
    signing_input = f"{b64({'alg': 'HS256', 'kid': door.kid})}.{b64(door.claims())}"
    signature = hmac.digest(public, signing_input.encode(), "sha256")
    token = f"{signing_input}.{base64url_encode(signature).decode()}"
    assert refusal(door.authenticator(), token) == ("TOKEN_INVALID", "Invalid algorithm")
    # Nor when HS256 is switched on: the secret's tokens have another kid.
    assert refusal(door.authenticator(secret="s" * 32), token)[1] == "Invalid algorithm"


def test_another_algorithm_than_the_credentials_is_refused(door: Door) -> None:
    token = f"{b64({'alg': 'RS256', 'kid': door.kid})}.{b64(door.claims())}.AAAA"
    assert refusal(door.authenticator(), token)[1] == "Invalid algorithm"


@pytest.mark.parametrize(
    "kid",
    ["../../etc/passwd", "/dev/null", "local' OR '1'='1", "", 7, ["x"], {"a": 1}, True, "k" * 3000],
)
def test_a_kid_names_an_entry_and_nothing_else(door: Door, kid: Any) -> None:
    token = door.signed(json.dumps(door.claims()), json.dumps({"alg": "ES256", "kid": kid}))
    assert refusal(door.authenticator(), token)[1] == "No credentials found for given 'kid'"


def test_a_kid_in_the_payload_is_refused(door: Door) -> None:
    reason, message = refusal(door.authenticator(), door.token(kid=door.kid))
    assert (reason, message) == ("TOKEN_INVALID", "Bad token; 'kid' belongs in the header")


@pytest.mark.parametrize("parameter", ["jku", "x5u", "jwk", "x5c", "crit", "b64"])
def test_a_header_that_brings_a_key_is_refused(door: Door, parameter: str) -> None:
    head = json.dumps({"alg": "ES256", "kid": door.kid, parameter: ["https://evil.example/k"]})
    token = door.signed(json.dumps(door.claims()), head)
    assert parameter in refusal(door.authenticator(), token)[1]


def test_a_claim_that_stands_twice_is_refused(door: Door) -> None:
    payload = json.dumps(door.claims())
    twice = payload[:-1] + ', "tenant": "user"}'
    assert refusal(door.authenticator(), door.signed(twice))[1] == "Bad token; invalid JSON"
    nested = payload[:-1] + ', "x": {"a": 1, "a": 2}}'
    assert refusal(door.authenticator(), door.signed(nested))[1] == "Bad token; invalid JSON"
    head = f'{{"alg": "ES256", "kid": "{door.kid}", "kid": "{door.kid}"}}'
    assert refusal(door.authenticator(), door.signed(payload, head))[1] == "Bad token; invalid JSON"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("exp", "1900000600"),
        ("exp", True),
        ("exp", [1900000600]),
        ("exp", None),
        ("exp", 10**400),
        ("nbf", "0"),
        ("nbf", None),
        ("iat", "yesterday"),
        ("sub", 7),
        ("sub", ""),
        ("sub", "   "),
        ("sub", None),
        ("sub", "a\nb"),
        ("sub", "\ud800"),
        ("sub", "u" * 257),
        ("tenant", 7),
        ("tenant", ""),
        ("tenant", None),
        ("tenant", ["acme"]),
        ("scope", ["chat"]),
        ("scope", None),
        ("scope", {"chat": 1}),
        ("jti", 5),
        ("iss", ["local"]),
        ("iss", None),
        ("aud", "another-service"),
        ("aud", {"a": 1}),
    ],
)
def test_wrong_types_are_refused(door: Door, claim: str, value: Any) -> None:
    token = door.signed(json.dumps(door.claims(**{claim: value})))
    assert refusal(door.authenticator(), token)[0] == "TOKEN_INVALID"


@pytest.mark.parametrize("raw", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(door: Door, raw: str) -> None:
    payload = json.dumps(door.claims()).replace("1900000600", raw)
    assert raw in payload
    assert refusal(door.authenticator(), door.signed(payload))[0] == "TOKEN_INVALID"


@pytest.mark.parametrize("payload", ["[]", "7", '"x"', "null", "{", "", "[" * 4000])
def test_claims_that_are_no_object_are_refused(door: Door, payload: str) -> None:
    assert refusal(door.authenticator(), door.signed(payload))[1] == "Bad token; invalid JSON"


def test_huge_tokens_are_refused_unread(door: Door) -> None:
    for token in ("a" * 9000, "a." * 5_000_000, door.token(x="y" * 10_000)):
        assert refusal(door.authenticator(), token)[1] == "Bad token; too large"


@pytest.mark.parametrize("token", ["é.é.é", "a.b", "a.b.c.d", "...", "a.b.c", "%%%.%%%.%%%", "="])
def test_garbage_is_refused(door: Door, token: str) -> None:
    assert refusal(door.authenticator(), token)[0] == "TOKEN_INVALID"


def test_an_audience_must_include_us(door: Door) -> None:
    gate = door.authenticator()
    assert gate.authenticate(f"Bearer {door.token(aud=['other', 'ragmesh'])}").tenant == "acme"


def test_another_tenants_claim_is_refused(door: Door) -> None:
    gate = door.authenticator()
    for changes in ({"tenant": "rival"}, {"tenant": ..., "sub": "rival"}, {"tenant": "*"}):
        with pytest.raises(PermissionDenied) as caught:
            gate.authenticate(f"Bearer {door.token(**changes)}")
        assert caught.value.reason == "TENANT_NOT_ALLOWED"


def test_a_trusted_issuer_speaks_for_any_tenant(door: Door) -> None:
    door.kid = door.keyring.create("trusted", tenants=["*"], scopes=["chat"])
    principal = door.authenticator().authenticate(
        f"Bearer {door.token(iss='trusted', tenant='any one')}"
    )
    assert (principal.consumer, principal.tenant) == ("trusted", "any one")


def test_one_consumers_key_does_not_speak_for_another(door: Door) -> None:
    door.keyring.create("second", tenants=["*"])
    assert refusal(door.authenticator(), door.token(iss="second"))[1] == "Invalid 'iss'"


@pytest.mark.parametrize("scope", ["chat models:admin", "models:admin", "*", "scope:chat", "Chat"])
def test_scopes_do_not_widen(door: Door, scope: str) -> None:
    with pytest.raises(PermissionDenied) as caught:
        door.authenticator().authenticate(f"Bearer {door.token(scope=scope)}")
    assert caught.value.reason == "SCOPE_NOT_ALLOWED"


def test_a_little_skew_is_forgiven_and_no_more(door: Door) -> None:
    gate = door.authenticator(leeway=5)
    gate.authenticate(f"Bearer {door.token(exp=int(NOW) - 4)}")
    gate.authenticate(f"Bearer {door.token(nbf=int(NOW) + 4)}")
    assert refusal(gate, door.token(exp=int(NOW) - 5))[0] == "TOKEN_EXPIRED"
    assert refusal(gate, door.token(nbf=int(NOW) + 6))[0] == "TOKEN_INVALID"


def test_a_token_that_lives_too_long_is_refused(door: Door) -> None:
    token = door.token(exp=int(NOW) + 10**8)
    assert refusal(door.authenticator(), token)[1] == "exp: exceeds maximum allowed expiration"


def test_a_remembered_token_still_expires(door: Door) -> None:
    gate = door.authenticator(leeway=0)
    token = door.token()
    assert gate.authenticate(f"Bearer {token}") is gate.authenticate(f"Bearer {token}")
    door.clock.advance(600)
    assert refusal(gate, token)[0] == "TOKEN_EXPIRED"


def test_the_cache_is_bounded(door: Door) -> None:
    gate = door.authenticator(cache_size=3)
    tokens = [door.token(jti=str(n)) for n in range(5)]
    first = gate.authenticate(f"Bearer {tokens[0]}")
    for token in tokens[1:]:
        gate.authenticate(f"Bearer {token}")
    assert gate.authenticate(f"Bearer {tokens[0]}") is not first
    assert len(gate._cache) == 3


def test_rotation_keeps_old_tokens_and_revocation_ends_them(door: Door) -> None:
    gate = door.authenticator(check_interval=0.5)
    old = door.token()
    gate.authenticate(f"Bearer {old}")
    first, door.kid = door.kid, door.keyring.rotate("local")
    door.clock.advance(1)
    gate.authenticate(f"Bearer {old}")
    gate.authenticate(f"Bearer {door.token()}")
    door.keyring.revoke(first)
    door.clock.advance(1)
    assert refusal(gate, old)[1] == "No credentials found for given 'kid'"
    gate.authenticate(f"Bearer {door.token()}")


def test_a_broken_file_leaves_the_known_keys_in_force(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    gate = door.authenticator()
    door.keyring.rendered.write_text("consumers: [")
    door.clock.advance(1)
    gate.authenticate(f"Bearer {door.token()}")
    assert "not reloaded" in caplog.text
    with pytest.raises(FailedPrecondition) as caught:
        door.authenticator()
    assert caught.value.reason == "CREDENTIALS_UNREADABLE"


def test_no_file_no_gateway(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="CREDENTIALS_UNREADABLE"):
        Authenticator(tmp_path / "kong.yml")


def test_hs256_only_from_a_configured_secret(door: Door) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    claims = door.claims(iss="embedded", tenant="anyone", scope="chat models:admin")
    for headers in (None, {"kid": "embedded"}):
        token = jwt.encode(claims, secret, algorithm="HS256", headers=headers)
        assert refusal(door.authenticator(), token)[0] == "TOKEN_INVALID"
        principal = door.authenticator(secret=secret).authenticate(f"Bearer {token}")
        assert (principal.consumer, principal.tenant) == ("embedded", "anyone")
    wrong = jwt.encode(claims, secret + "x", algorithm="HS256")
    assert refusal(door.authenticator(secret=secret), wrong)[1] == "Invalid signature"
    other = jwt.encode(claims | {"iss": "local"}, secret, algorithm="HS256")
    assert refusal(door.authenticator(secret=secret), other)[1] == "Invalid 'iss'"
    with pytest.raises(FailedPrecondition, match="SECRET_KEY_TOO_SHORT"):
        door.authenticator(secret="changeme")


def test_a_setting_shortens_the_longest_life(door: Door) -> None:
    gate = door.authenticator(max_lifetime=300)
    gate.authenticate(f"Bearer {door.token(exp=int(NOW) + 300)}")
    assert refusal(gate, door.token())[1] == "exp: exceeds maximum allowed expiration"


def test_models_of_the_consumer_bound_those_of_the_token(door: Door) -> None:
    gate = door.authenticator()
    assert gate.authenticate(f"Bearer {door.token()}").models is None
    assert gate.authenticate(f"Bearer {door.token(models='a b/c')}").models == frozenset(
        {"a", "b/c"}
    )
    assert gate.authenticate(f"Bearer {door.token(models=[])}").models == frozenset()
    named = ["default", "openai/gpt-4", "a,b"]
    door.kid = door.keyring.create("narrow", tenants=["acme"], scopes=["chat"], models=named)
    gate = door.authenticator()
    principal = gate.authenticate(f"Bearer {door.token(iss='narrow')}")
    assert principal.models == frozenset(named)
    principal.require_model("openai/gpt-4")
    with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
        principal.require_model("openai/gpt-5")
    fewer = gate.authenticate(f"Bearer {door.token(iss='narrow', models=['default'])}")
    assert fewer.models == frozenset({"default"})
    for wider in (["default", "openai/gpt-5"], "*", ["Default"], "openai%2Fgpt-4"):
        with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
            gate.authenticate(f"Bearer {door.token(iss='narrow', models=wider)}")


@pytest.mark.parametrize("models", [7, None, True, {"default": 1}, [7], [""], [["default"]]])
def test_models_of_a_wrong_type_are_refused(door: Door, models: Any) -> None:
    token = door.signed(json.dumps(door.claims(models=models)))
    assert refusal(door.authenticator(), token)[1] == "models: must be a list of names"


def test_a_key_made_this_moment_is_known_at_once(door: Door) -> None:
    gate = door.authenticator(check_interval=3600)
    door.kid = door.keyring.rotate("local")
    gate.authenticate(f"Bearer {door.token()}")


def test_a_key_on_standby_verifies_and_does_not_sign(door: Door) -> None:
    first, standby = door.kid, door.keyring.rotate("local", standby=True)

    def signer() -> str:
        token = door.keyring.issue(consumer="local", subject="user", scopes=["chat"])
        return str(jwt.get_unverified_header(token)["kid"])

    assert signer() == first
    door.kid = standby
    door.authenticator().authenticate(f"Bearer {door.token()}")
    door.keyring.promote(standby)
    assert signer() == standby
    with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
        door.keyring.promote("nothing")
