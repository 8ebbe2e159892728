"""A client of the Cherwell REST API, and the settings of a portal in front of it."""
import json
import urllib.parse

API = "/CherwellAPI/api/V1"
INCIDENT = "6dd53665c0c24cab86870a21cf6434ae"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
SECRET = "session-secret-0123456789abcdef-0123456789abcdef"


def settings(folder, users="user,user_type\nnobody,portal\n", licensing=None, **sessions):
    """For proxy(...): sessions by the tokens of the CRM alone."""
    secret = folder / "sessions.key"
    secret.write_text(SECRET)
    listed = folder / "users.csv"
    listed.write_text(users)
    return {"identity": {"jwt": None, "sessions": {"kinds": "cherwell", "secret_file": str(secret), **sessions}},
            "catalogue": {"dialects": ["cherwell"]},
            "licensing": {"main_products": None, "main_product_users": None, "directory_file": str(listed), "system": "none",
                          **(licensing or {})}}


def ask_token(gate, site="", query="", headers=(), **form):
    target = "/CherwellAPI/token?auth_mode=Internal" + (f"&site_name={urllib.parse.quote(site)}" if site else "") + query
    body = urllib.parse.urlencode({"grant_type": "password", "client_id": "client", "password": "secret", **form})
    return gate.call("POST", target, {**FORM, **dict(headers)}, body.encode())


class Caller:
    """One client of one user: logged in to a site of the portal."""

    def __init__(self, gate, user, site="", **more):
        self.gate, self.user = gate, user
        reply = ask_token(gate, site, username=user, **more)
        assert reply.status == 200, reply
        self.take(reply)

    def take(self, reply):
        self.token, self.refresh_token = reply.json()["access_token"], reply.json()["refresh_token"]

    @property
    def auth(self):
        return {"Authorization": "Bearer " + self.token}

    def call(self, method, path, body=None, gate=None, headers=()):
        data = None if body is None else json.dumps(body).encode()
        return (gate or self.gate).call(method, API + path, {**self.auth, **(JSON if data else {}), **dict(headers)}, data)

    def refresh(self, site="", gate=None):
        return ask_token(gate or self.gate, site, grant_type="refresh_token", refresh_token=self.refresh_token)

    def logout(self):
        return self.call("DELETE", "/logout")

    def create(self, object_id=INCIDENT, **fields):
        """The new record's id."""
        reply = self.save(object_id=object_id, **fields)
        assert reply.status == 200, reply
        return reply.json()["busObRecId"]

    def save(self, record="", object_id=INCIDENT, **fields):
        listed = [{"name": name, "value": value, "dirty": True} for name, value in fields.items()]
        return self.call("POST", "/savebusinessobject", {"busObId": object_id, "busObRecId": record, "fields": listed, "persist": True})

    def view(self, record, object_id=INCIDENT):
        return self.call("GET", f"/getbusinessobject/busobid/{object_id}/busobrecid/{record}")

    def delete(self, record, object_id=INCIDENT):
        return self.call("DELETE", f"/deletebusinessobject/busobid/{object_id}/busobrecid/{record}")

    def run(self, step, record="", object_id=INCIDENT, **more):
        return self.call("POST", "/runonestepaction", {"busObId": object_id if record else "", "busObRecId": record, "acquireLicense": False,
                                                       "oneStepActionStandInKey": f"DefType:OneStepDef#Scope:Global#Id:{step}"}, **more)
