"""What the upstream is told of the caller: who was found to call, never what a client says of itself."""
import urllib.parse

import jwt
import pytest

from harness import bearer

PASS_SECRET = "pass-secret-0123456789abcdef-0123456789abcdef"
FORGED = [("X-Tollgate-User", "root"), ("x-tollgate-user-type", "staff"), ("X_Tollgate_User", "root"), ("X-Tollgate-Identity", "e30.e30.e30"),
          ("X-Tollgate-Tenant", "other"), ("X-Tollgate-Organization", "other")]


def told(reply):
    """Fields that the CRM received and that speak of the caller."""
    assert reply.status == 200, reply
    return {name.lower(): value for name, value in reply.json()["headers"] if "tollgate" in name.lower()}


ROUTES = [{"path_prefix": "/echo/open", "upstream": "crm", "metered": False}, {"path_prefix": "/", "upstream": "crm"}]


@pytest.fixture
def gate_that_passes(proxy, tmp_path):
    def make(**settings):
        (tmp_path / "pass.key").write_text(PASS_SECRET)
        if settings.get("as") == "token":
            settings["secret_file"] = str(tmp_path / "pass.key")
        return proxy(routes=ROUTES, licensing={"system": "none", "main_products": None, "main_product_users": None}, identity={"pass": settings})

    return make


def test_fields_that_a_client_forges_go_no_further(gate_that_passes, user):
    gate = gate_that_passes()
    for target in ("/echo", "/echo/open"):
        assert told(gate.call("GET", target, [*bearer(user).items(), *FORGED])) == {}
    trailers = gate.call("POST", "/echo", [*bearer(user).items()], chunked=[b"x"], trailers=[("X-Tollgate-User", "root"), ("X-Kept", "1")])
    assert [name for name, _ in trailers.json()["trailers"]] == ["X-Kept"]


def test_the_caller_is_told_plainly(gate_that_passes, user):
    gate = gate_that_passes(**{"as": "plain"})
    assert told(gate.call("GET", "/echo", [*bearer(user, tenant="acme", org="Best, Ltd").items(), *FORGED])) == {
        "x-tollgate-user": user, "x-tollgate-tenant": "acme", "x-tollgate-organization": "Best, Ltd", "x-tollgate-user-type": "portal"}
    assert told(gate.call("GET", "/echo/open", FORGED)) == {}, "nobody was found to call"
    answer = told(gate.call("GET", "/echo", bearer("Ёж 100%", user_type=None)))
    assert answer == {"x-tollgate-user": "%D0%81%D0%B6 100%25"}
    assert urllib.parse.unquote(answer["x-tollgate-user"]) == "Ёж 100%"


def test_names_can_be_chosen_and_are_then_the_ones_that_are_dropped(gate_that_passes, user):
    gate = gate_that_passes(**{"as": "plain", "user_field": "Remote-User"})
    headers = dict(gate.call("GET", "/echo", [*bearer(user).items(), ("Remote-User", "root")]).json()["headers"])
    assert headers["Remote-User"] == user
    assert "X-Tollgate-User" in dict(gate.call("GET", "/echo", [*bearer(user).items(), ("X-Tollgate-User", "x")]).json()["headers"])


def test_the_caller_is_told_in_a_token_that_the_upstream_can_check(gate_that_passes, user):
    gate = gate_that_passes(**{"as": "token", "lifetime": "30s"})
    fields = told(gate.call("GET", "/echo", [*bearer(user, org="Best Ltd").items(), *FORGED]))
    assert set(fields) == {"x-tollgate-identity"}
    claims = jwt.decode(fields["x-tollgate-identity"], PASS_SECRET, algorithms=["HS256"], audience="crm", issuer="tollgate")
    assert claims["exp"] - claims["iat"] == 30
    assert {name: claims[name] for name in ("sub", "org", "user_type")} == {"sub": user, "org": "Best Ltd", "user_type": "portal"}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(fields["x-tollgate-identity"], "another-secret-0123456789abcdef-0123", algorithms=["HS256"], audience="crm")
