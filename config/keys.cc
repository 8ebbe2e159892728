#include "config/keys.h"

#include "config/key_groups.h"

namespace tollgate::config {
namespace {

Fields describe_certificate(ListenerTls::Certificate& c) {
  return {
      {"certificate_file", Text{&c.certificate_file, Format::input_file, {}, false}, "PEM chain, leaf first.",
       true},
      {"key_file", Text{&c.key_file, Format::input_file, {}, false}, "PEM private key of the leaf.", true},
      {"ocsp_file", Text{&c.ocsp_file, Format::input_file},
       "OCSP response (DER) of the leaf, to be stapled."},
  };
}

Fields describe_listener_tls(ListenerTls& tls) {
  return {
      {"certificate_file", Text{&tls.certificate_file, Format::input_file},
       "The default certificate: PEM chain, leaf first."},
      {"key_file", Text{&tls.key_file, Format::input_file}, "PEM private key of the default certificate."},
      {"certificates", items(&tls.certificates, describe_certificate),
       "Further certificates, chosen by SNI from the names inside them."},
      {"client_ca_file", Text{&tls.client_ca_file, Format::input_file},
       "When set, clients must present a certificate that one of these authorities issued."},
      {"min_version", Text{&tls.min_version, Format::any, {"1.2", "1.3"}},
       "Lowest TLS version that is accepted."},
      {"ocsp_file", Text{&tls.ocsp_file, Format::input_file},
       "OCSP response (DER) of the default certificate, stapled until it expires; read again at a reload."},
      {"ticket_secret_files", TextList{&tls.ticket_secret_files, Format::input_file, {}, 0, 16, true},
       "Files of 32 bytes or more that the keys of session tickets are made from: the first seals, all open. "
       "Proxies with equal files resume each other's sessions. Default: a secret of this process's own."},
      {"ticket_rotation", Span{&tls.ticket_rotation, 1min, 31 * kDay},
       "How often these keys change; tickets sealed before are opened for one more period."},
  };
}

Fields describe_listener(Listener& listener) {
  return {
      {"address", Text{&listener.address, Format::listen_address, {}, false},
       "Where clients connect: IP address and port, `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:8080`. Port 0 "
       "lets the system choose. Or a Unix socket, `unix:/run/tollgate.sock`.",
       true},
      {"proxy_protocol", Flag{&listener.proxy_protocol},
       "Every connection begins with a PROXY header, version 1 or 2, that says who the client is; without "
       "one it "
       "is closed."},
      {"proxy_protocol_from", TextList{&listener.proxy_protocol_from, Format::network, {}, 0, 10'000, true},
       "Networks (CIDR) of the load balancers; connections of others are closed. Empty: anybody."},
      {"tls",
       OptionalGroup{[&listener] { return listener.tls.has_value(); },
                     [&listener] {
                       if (!listener.tls) listener.tls.emplace();
                       return describe_listener_tls(*listener.tls);
                     }},
       "Speak TLS on this listener."},
  };
}

Fields describe_admin(Admin& admin) {
  return {
      {"address", Text{&admin.address, Format::listen_address},
       "Where health checks, metrics, the admin API and the web page are served. Empty switches the admin "
       "port off."},
      {"token_file", Text{&admin.token_file, Format::input_file},
       "File with the bearer token that the admin API asks for; `/livez`, `/readyz`, `/metrics` and "
       "`/version` need "
       "none."},
  };
}

Fields describe_upstream_tls(UpstreamTls& tls) {
  return {
      {"ca_file", Text{&tls.ca_file, Format::input_file},
       "PEM certificates of the authorities to trust. Default: the system's store."},
      {"verify", Flag{&tls.verify}, "Check the upstream's certificate chain and name. `false` is for tests."},
      {"server_name", Text{&tls.server_name, Format::host_name},
       "Name sent by SNI and verified. Default: the host of the server's URL."},
      {"certificate_file", Text{&tls.certificate_file, Format::input_file}, "Client certificate: PEM chain."},
      {"key_file", Text{&tls.key_file, Format::input_file}, "Private key of the client certificate."},
  };
}

Fields describe_health_check(HealthCheck& check) {
  return {
      {"path", Text{&check.path, Format::target},
       "Target of a `GET` that a server answers well when it can serve calls: `/health`. Empty: no checks."},
      {"host", Text{&check.host, Format::host_name}, "`Host` of the check. Default: the server's own."},
      {"interval", Span{&check.interval, 100ms, kDay},
       "Between two checks of a server. Each proxy checks, once, however many workers it has."},
      {"timeout", Span{&check.timeout, 1ms, 10min}, "Longest time of a check, connecting included."},
      {"unhealthy_threshold", Number{&check.unhealthy_threshold, 1, 1'000},
       "Failed checks in a row that take a server out. The first check of all decides at once."},
      {"healthy_threshold", Number{&check.healthy_threshold, 1, 1'000},
       "Passed checks in a row that bring it back."},
      {"statuses", TextList{&check.statuses, Format::statuses, {}, 1, 100, true},
       "Statuses that pass, `200` or `200-399`."},
  };
}

Fields describe_outlier(Outlier& outlier) {
  return {
      {"failures", Number{&outlier.failures, 0, 1'000'000},
       "Failed calls in a row (no reply, a broken one, none in time, or one of `statuses`) that leave a "
       "server out. "
       "0: never. Counted per worker."},
      {"statuses", TextList{&outlier.statuses, Format::statuses, {}, 0, 100, true},
       "Statuses of replies that count as failures, `503` or `500-599`."},
      {"ejection", Span{&outlier.ejection, 1ms, kDay},
       "How long it is left out; once longer for each time it happens again."},
      {"ejection_max", Span{&outlier.ejection_max, 1ms, 31 * kDay},
       "The most of that, and the time in peace after which it begins anew."},
      {"max_ejected_percent", Number{&outlier.max_ejected_percent, 0, 100},
       "Share of the servers that may be left out at a time: with 50, one of two and never the only one."},
  };
}

Fields describe_upstream(Upstream& u) {
  return {
      {"servers", TextList{&u.servers, Format::server_url, {}, 1, 1'000, true},
       "Base URLs of the CRM's servers, `http://host:port` or `https://host:port`, or Unix sockets, "
       "`unix:/run/crm.sock`; calls are spread over them.",
       true},
      {"weights", NumberMap{&u.weights, 1, 1'000, Format::server_url},
       "Server, as in `servers` -> its share of the calls. Default: 1 each."},
      {"balance", choice(&u.balance, {"round_robin", "least_connections", "hash"}),
       "Who gets the next call: servers in turn by weight; the one with the fewest calls in flight for its "
       "weight; or "
       "always the same one for the same `hash_key` (weighted rendezvous hashing: a server that comes or "
       "goes moves "
       "only its own keys). Counted per worker."},
      {"hash_key", Text{&u.hash_key, Format::hash_key, {}, false},
       "`hash`: `user` (of the token; without one the client's address), `ip` (the client's address) or "
       "`header:NAME`. "
       "Calls without that header go in turn."},
      {"tls", Group{describe_upstream_tls(u.tls)}, "How `https` servers are verified."},
      {"resolve_interval", Span{&u.resolve_interval, 1s, kDay},
       "How often host names are looked up again. All addresses of a name are used; idle connections to "
       "addresses that "
       "are gone are closed. The last good answer stays in use while look-ups fail or take long, and through "
       "reloads."},
      {"connect_timeout", Span{&u.connect_timeout, 1ms, 10min},
       "Longest wait for a connection. Several addresses of a name are tried one after the other, each with "
       "its share of the time that is left; one that fails comes last for 30 s."},
      {"response_timeout", Span{&u.response_timeout, 1ms, kDay},
       "From the whole request sent to the head of the reply."},
      {"idle_timeout", Span{&u.idle_timeout, 1ms, kDay}, "Between two reads or writes of a body."},
      {"keepalive_timeout", Span{&u.keepalive_timeout, 1ms, kDay},
       "How long an idle connection is kept. Keep it below the upstream's own."},
      {"max_idle_connections", Number{&u.max_idle_connections, 0, 1'000'000},
       "Idle connections kept, per worker."},
      {"max_connections", Number{&u.max_connections, 1, 1'000'000},
       "Connections to this upstream, per worker; beyond it a call waits up to `queue_timeout`."},
      {"queue_timeout", Span{&u.queue_timeout, 0ms, 10min}, "Longest wait for a free connection."},
      {"max_retries", Number{&u.max_retries, 0, 10},
       "How often a call is tried again, by another server. Bodies are not kept for it: a call is repeated "
       "only while "
       "it is whole."},
      {"retry_on", TextList{&u.retry_on, Format::any, retry_names(), 0, 6, true},
       "`connect`: there was no connection, so nothing was sent: any call. The others only for "
       "idempotent methods (GET, HEAD, OPTIONS, PUT, DELETE) and within `retry_budget`: `closed`, the "
       "connection ended "
       "without a byte of a reply; `timeout`, no reply within `response_timeout`; `502`, `503`, `504`, that "
       "status. "
       "A call is charged once, however often it is tried."},
      {"retry_budget", Number{&u.retry_budget, 0, 100},
       "Percent of the calls that may be repeated though a server may have received them, and one a second; "
       "per worker."},
      {"total_timeout", Span{&u.total_timeout, 0ms, kDay},
       "From the call being ready for the upstream to the last byte of its reply: waiting, connecting and "
       "retries "
       "included. 0: no such bound. Upgraded connections have none."},
      {"slow_start", Span{&u.slow_start, 0ms, 1h},
       "A server that comes back begins with a tenth of its weight and has the whole after this."},
      {"health_check", Group{describe_health_check(u.health_check)}, "Asks servers whether they are well."},
      {"outlier", Group{describe_outlier(u.outlier)}, "Leaves servers out that fail real calls."},
  };
}

Fields describe_edits(FieldEdits& edits) {
  return {
      {"remove", TextList{&edits.remove, Format::header_name, {}, 0, 100, true}, "Fields to leave out."},
      {"set", TextMap{&edits.set, Format::header_name, Format::any},
       "Field -> value, in place of any there."},
      {"add", TextMap{&edits.add, Format::header_name, Format::any}, "Field -> value, beside any there."},
  };
}

Fields describe_rewrite(Rewrite& rewrite) {
  return {
      {"replace_prefix", Text{&rewrite.replace_prefix, Format::sent_prefix},
       "What the upstream is asked for in place of `path_prefix`: with `path_prefix: /portal` and "
       "`replace_prefix: /crm`, "
       "`/portal/a?b` becomes `/crm/a?b`; `/` takes the prefix away. Routes match the path as it was sent; "
       "objects, "
       "licences and quotas are judged by the path that the upstream gets. Empty: the path goes on as it was "
       "sent. "
       "More: [paths](wire.md#paths)."},
      {"map_replies", Flag{&rewrite.map_replies},
       "Give `Location`, `Content-Location` and the `Path` of cookies that lie below `replace_prefix` the "
       "`path_prefix` "
       "again. `false` for a CRM that knows where clients see it."},
  };
}

Fields describe_route(Route& route) {
  return {
      {"host", Text{&route.host, Format::host_name},
       "Host this route is for, without port. Empty matches every host."},
      {"path_prefix", Text{&route.path_prefix, Format::path_prefix, {}, false},
       "The longest prefix that matches wins; matched on whole segments of the normalised path."},
      {"upstream", Text{&route.upstream, Format::name, {}, false},
       "Name of the upstream that gets the calls.", true},
      {"metered", Flag{&route.metered},
       "`false`: proxied without token, licence or quota (health pages, public assets)."},
      {"allow_upgrade", Flag{&route.allow_upgrade}, "Let WebSocket and other `Upgrade` requests through."},
      {"max_body", Size{&route.max_body, 0, 1024 * kGiB},
       "Largest request body on this route, beside `limits.max_body`. 0: no limit."},
      {"rewrite", Group{describe_rewrite(route.rewrite)}, "Another path for the upstream."},
      {"request_fields", Group{describe_edits(route.request_fields)},
       "Changes to the fields of a request. What is removed or set arrives from a client in no spelling (`_` "
       "for `-`) "
       "and not as a trailer."},
      {"reply_fields", Group{describe_edits(route.reply_fields)},
       "Changes to the fields of the CRM's reply (not of replies that the proxy makes itself). What is "
       "removed or set "
       "passes not as a trailer either."},
  };
}

Fields describe_store(Store& store) {
  return {
      {"url", Text{&store.url, Format::store_url, {}, false},
       "Where calls are counted: `embedded:DIR` (a Redis started and owned by the proxy), "
       "`redis://[user[:password]@]host:port/db`, `rediss://...` (TLS), `redis+unix://PATH?db=0`, "
       "`redis+sentinel://host[:port],host[:port].../name[/db]` (the primary called `name` there), "
       "`redis+cluster://host[:port],host[:port]...`; the two last over TLS as `rediss+...`. A password "
       "belongs "
       "into `password_file` or `${ENV}`."},
      {"user", Text{&store.user}, "ACL user; wins over a user in the URL."},
      {"password_file", Text{&store.password_file, Format::input_file},
       "File with the password; wins over a password in the URL."},
      {"on_outage", choice(&store.on_outage, {"lease", "allow", "deny"}),
       "When the store does not answer: `lease` serves what is already leased, then refuses with 503; "
       "`allow` lets "
       "calls through beyond that too and counts them when the store is back; `deny` refuses at once with "
       "503."},
      {"timeout", Span{&store.timeout, 1ms, 1min}, "Longest a call waits for the store."},
      {"connect_timeout", Span{&store.connect_timeout, 1ms, 10min},
       "Longest wait for a connection to the store."},
      {"ca_file", Text{&store.ca_file, Format::input_file},
       "`rediss://`: authorities to trust. Default: the system's store."},
      {"server_name", Text{&store.server_name, Format::host_name},
       "`rediss://`: name sent by SNI and verified. Default: the host of the URL."},
      {"verify", Flag{&store.verify}, "`rediss://`: check chain and name. `false` is for tests."},
      {"redis_server", Text{&store.redis_server, Format::any, {}, false},
       "Program that `embedded:` starts: a name looked up in PATH, or an absolute path."},
      {"durability", choice(&store.durability, {"replay", "wait"}),
       "What keeps counts exact when a failover loses writes. `replay`: the proxies write them again from "
       "their "
       "journals. `wait`: a grant is used only after the replicas have confirmed it."},
      {"min_replicas", Number{&store.min_replicas, 1, 16},
       "`wait`: confirmations needed at least. All replicas that are connected are waited for."},
      {"wait_timeout", Span{&store.wait_timeout, 1ms, 10s},
       "`wait`: longest for these; without them the grant is not used and asked for again."},
      {"strict", Flag{&store.strict},
       "Refuse to start when the server's settings do not keep the promises (eviction, persistence, "
       "replicas); "
       "otherwise they are warnings."},
      {"session", Span{&store.session, 3s, kDay},
       "How long leases serve while the store is away; at least three times `ping_interval`."},
      {"ping_interval", Span{&store.ping_interval, 1s, 1h}, "How often a proxy renews its sessions."},
      {"flush_interval", Span{&store.flush_interval, 1s, kDay},
       "Use is settled in the store at the latest after this and a tenth; usage seen from other proxies lags "
       "by as much."},
      {"lease_max", Number{&store.lease_max, 1, 1'000'000},
       "Tokens lent to one proxy ahead of need, per account. More: fewer round trips; fewer: more evenly "
       "spread."},
      {"fence_wait", Span{&store.fence_wait, 100ms, 10min},
       "After a failover: longest wait for proxies that have not replayed, before anything new is lent."},
  };
}

Fields describe_journal(Journal& journal) {
  return {
      {"directory", Text{&journal.directory, Format::directory, {}, false},
       "Folder of the journal: leases, settlements and the calls that billing is made from. It belongs to "
       "one running "
       "proxy and has to outlive it: a lasting disk, not a container's own."},
      {"segment_size", Size{&journal.segment_size, kMiB, 4 * kGiB},
       "Size of one file of the journal, allocated ahead, one per worker and one for the rest. A multiple of "
       "4KiB."},
      {"commit_interval", Span{&journal.commit_interval, 5ms, 1min},
       "How often it is made durable: the most that a power loss takes. A killed process loses nothing."},
      {"retention", Span{&journal.retention, 1h, 366 * kDay},
       "Kept at least this long, for replays; and until it is rolled up. Longer than the longest window and "
       "`session`."},
      {"max_size", Size{&journal.max_size, 0, 1024 * 1024 * kGiB},
       "Of all segments together; beyond it the oldest go before `retention` is over: first what is rolled "
       "up, then, "
       "with an error in the log, what is not and will never be billed. 0: no cap but the disk."},
      {"accounts", Number{&journal.accounts, 1'024, 16'777'216},
       "Quota accounts that this proxy can hold leases of at a time, 512 bytes of disk each, allocated at "
       "the start. "
       "Grows with a restart, never shrinks while in use."},
      {"on_failure", choice(&journal.on_failure, {"refuse", "continue"}),
       "When the journal cannot be written (disk full, disk failing): `refuse` answers metered calls with "
       "503; "
       "`continue` serves them without a record."},
  };
}

Fields describe_catalogue(Catalogue& catalogue) {
  return {
      {"dialects", TextList{&catalogue.dialects, Format::any, dialect_names(), 1, 10, true},
       "API families the CRM speaks, tried in order."},
      {"custom_sections", TextList{&catalogue.custom_sections, Format::object_name, {}, 0, 3},
       "Root entities of the portal's own sections, at most 3."},
      {"custom_prefixes", TextList{&catalogue.custom_prefixes, Format::object_name, {}, 0, 100, true},
       "Prefixes of entities that this installation added."},
      {"unlicensed_objects", TextList{&catalogue.unlicensed_objects, Format::object_name},
       "Entities with a custom prefix that belong to no section."},
      {"custom_children", TextListMap{&catalogue.custom_children, Format::object_name, Format::object_name},
       "Root of a custom section -> its detail entities. Those the section wizard makes ({Root}File, "
       "InFolder, Folder, InTag, Tag, Visa) need not be listed."},
      {"uids", TextMap{&catalogue.uids, Format::uid, Format::object_name},
       "Schema UId -> entity, for services that name an object only by its UId."},
      {"relations", TextMap{&catalogue.relations, Format::relation, Format::object_name},
       "`Object.Column` or `*.Column` -> entity that this look-up points to, beside those of the rulebook."},
      {"processes", Effects{&catalogue.processes},
       "Business process -> what it does, a list of `{object: Case, operation: edit}`."},
      {"allow_unknown", Flag{&catalogue.allow_unknown},
       "Let calls through whose object or effect cannot be told from the request."},
      {"max_body", Size{&catalogue.max_body, kKiB, kGiB}, "Largest body that is buffered to be looked into."},
  };
}

Fields describe_quota(QuotaRule& rule) {
  return {
      {"name", Text{&rule.name, Format::identifier, {}, false},
       "Name of the rule, `[a-z0-9_-]+`. Calls are counted under it: renaming starts from zero.", true},
      {"mode", choice(&rule.mode, {"enforce", "shadow"}),
       "`shadow`: a candidate limit, evaluated beside the enforced ones and reported, that refuses nothing."},
      {"limit", Number{&rule.limit, 0, kUnitsMax}, "Calls that fit into one window.", true},
      {"window", Span{&rule.window, 1s, 366 * kDay}, "Length of the rolling window."},
      {"bucket", Span{&rule.bucket, 0ms, 31 * kDay},
       "Resolution of the window; 0 chooses it: a 1440th of the window, within 100 ms and 60 s."},
      {"per", TextList{&rule.per, Format::any, dimension_names(), 1, 6, true},
       "What has a window of its own: any of tenant, organization, product, user, object, operation."},
      {"on", Text{&rule.on, Format::any, {"licensed", "all", "credits"}},
       "`licensed`: operations on licensed objects; `all`: every forwarded call of an authenticated user; "
       "`credits`: these too, each as many units as Zoho counts it as API credits (quotas.md)."},
      {"staff", Flag{&rule.staff}, "Bind staff too."},
      {"overrides", NumberMap{&rule.overrides, 0, kUnitsMax, Format::any},
       "User (for rules without user: organization) -> limit instead of `limit`."},
  };
}

Fields describe_per_address(PerAddress& limits) {
  return {
      {"connections", Number{&limits.connections, 0, 10'000'000},
       "Connections open at a time; further ones are closed at once. 0: no limit."},
      {"connection_rate", Number{&limits.connection_rate, 0, 1'000'000},
       "New connections a second. 0: no limit."},
      {"connection_burst", Number{&limits.connection_burst, 0, 10'000'000},
       "New connections at once after a rest. 0: one second's worth."},
      {"request_rate", Number{&limits.request_rate, 0, 1'000'000},
       "Requests a second; further ones get 429. Behind a trusted proxy the address it names counts. 0: no "
       "limit."},
      {"request_burst", Number{&limits.request_burst, 0, 10'000'000},
       "Requests at once after a rest. 0: one second's worth."},
      {"exempt", TextList{&limits.exempt, Format::network, {}, 0, 10'000, true},
       "Networks (CIDR) that these limits do not bind: an office behind one address, monitoring."},
  };
}

Fields describe_overload(OverloadSettings& overload) {
  return {
      {"lag", Span{&overload.lag, 0ms, 1min},
       "A worker whose event loop is this late for a whole second answers anonymous requests with 503, at "
       "four "
       "times this all of them. 0: lateness is no reason."},
      {"memory", Size{&overload.memory, 0, 1024 * kGiB},
       "Memory of this process; from 90 % of it on anonymous requests are answered with 503, at 100 % all. "
       "0: "
       "90 % of what the control group or the machine has."},
  };
}

Fields describe_limits(Limits& limits) {
  return {
      {"max_header_bytes", Size{&limits.max_header_bytes, kKiB, kMiB}, "Whole head of a request or reply."},
      {"max_request_line", Size{&limits.max_request_line, 128, kMiB}, "Method, target and version."},
      {"max_header_count", Number{&limits.max_header_count, 8, 10'000}, "Header fields of one message."},
      {"max_body", Size{&limits.max_body, 0, 1024 * kGiB}, "Largest request body. 0: no limit."},
      {"max_connections", Number{&limits.max_connections, 1, 10'000'000}, "Client connections, per worker."},
      {"buffer", Size{&limits.buffer, 4 * kKiB, 64 * kMiB},
       "Buffer per direction of one exchange; beyond it the sender is paused."},
      {"min_body_rate", Size{&limits.min_body_rate, 0, kGiB},
       "Bytes a second that a client has to send of a body while it is waited for; else 408. 0: none."},
      {"min_reply_rate", Size{&limits.min_reply_rate, 0, kGiB},
       "Bytes a second that a client has to take of a reply; else it is cut off. 0: none."},
      {"rate_window", Span{&limits.rate_window, 1s, 10min}, "Time over which these two rates are judged."},
      {"per_address", Group{describe_per_address(limits.per_address)},
       "What one client address (IPv4, or IPv6 /64) may do, all workers together."},
  };
}

Fields describe_timeouts(Timeouts& t) {
  return {
      {"tls_handshake", Span{&t.tls_handshake, 1ms, 10min}, "Longest TLS handshake of a client."},
      {"request_head", Span{&t.request_head, 1ms, 1h},
       "From the first byte of a request to the end of its head."},
      {"request_body", Span{&t.request_body, 1ms, kDay}, "Between two reads of the body."},
      {"client_idle", Span{&t.client_idle, 1ms, kDay}, "Keep-alive connection without a request."},
      {"client_write", Span{&t.client_write, 1ms, kDay}, "Client that does not read its reply."},
      {"upgrade_idle", Span{&t.upgrade_idle, 1ms, 31 * kDay},
       "Upgraded connection (WebSocket) without traffic."},
      {"drain", Span{&t.drain, 0ms, kDay},
       "After SIGTERM: longest wait for calls in flight. In an upgrade (SIGUSR2) first as long for requests "
       "on idle connections."},
      {"drain_delay", Span{&t.drain_delay, 0ms, 1h},
       "After SIGTERM: `/readyz` says no for this long before the listeners close."},
  };
}

Fields describe_proxy(Proxy& proxy) {
  return {
      {"trusted_proxies", TextList{&proxy.trusted_proxies, Format::network, {}, 0, 10'000, true},
       "Networks (CIDR) whose `X-Forwarded-*` and `Forwarded` fields are believed."},
      {"problem_base_url", Text{&proxy.problem_base_url, Format::web_url, {}, false},
       "Prefix of `type` in problem documents; the reason code is appended."},
      {"odata_errors", Flag{&proxy.odata_errors},
       "Add the OData `error` object for callers that accept OData JSON."},
      {"rate_limit_headers", Text{&proxy.rate_limit_headers, Format::any, {"always", "never"}},
       "Send `RateLimit` and `RateLimit-Policy`."},
      {"legacy_rate_limit_headers", Flag{&proxy.legacy_rate_limit_headers},
       "Send `X-RateLimit-Limit`, `-Remaining` and `-Reset` too."},
      {"via", Text{&proxy.via, Format::header_name},
       "Name of this proxy in `Via` of what it sends to the CRM. Empty: no `Via`, since servers do not "
       "compress replies to requests that have one. More: [the wire](wire.md#requests)."},
  };
}

void collect_paths(const Fields& fields, const std::string& prefix, std::vector<std::string>& out) {
  for (const Field& field : fields) {
    std::string path = prefix + std::string(field.name);
    out.push_back(path);
    if (const auto* group = std::get_if<Group>(&field.value)) collect_paths(group->fields, path + ".", out);
    if (const auto* group = std::get_if<OptionalGroup>(&field.value))
      collect_paths(group->get(), path + ".", out);
    if (const auto* list = std::get_if<Items>(&field.value))
      collect_paths(list->add("name"), path + (list->named ? ".<name>." : "[]."), out);
  }
}

}  // namespace

std::vector<std::string> key_paths() {
  Settings scratch;
  std::vector<std::string> paths;
  collect_paths(describe(scratch), "", paths);
  return paths;
}

Fields describe(Settings& s) {
  return {
      {"version", Number{&s.version, 1, 1}, "Version of this format: 1."},
      {"workers", Number{&s.workers, 0, 1'024}, "Worker threads. 0: one per core."},
      {"listeners", items(&s.listeners, describe_listener, 1),
       "Where clients connect. Default: one listener on 127.0.0.1:8080."},
      {"admin", Group{describe_admin(s.admin)}, "The admin port."},
      {"upstreams", named_items(&s.upstreams, describe_upstream, 1), "The CRM's servers: name -> upstream.",
       true},
      {"routes", items(&s.routes, describe_route, 1),
       "Which calls go where. Default with a single upstream: everything goes there."},
      {"store", Group{describe_store(s.store)}, "Where calls are counted."},
      {"journal", Group{describe_journal(s.journal)}, "What a stopped or killed proxy leaves behind."},
      {"access_log",
       Group{{{"file", Text{&s.access_log.file, Format::output_file},
               "JSON lines, one a request. `-` is standard output, empty is off."}}},
       "The access log."},
      {"identity", Group{describe_identity(s.identity)}, "Who is calling."},
      {"catalogue", Group{describe_catalogue(s.catalogue)}, "What a request touches."},
      {"licensing", Group{describe_licensing(s.licensing)}, "What the licence allows."},
      {"quotas", items(&s.quotas, describe_quota), "How many calls are allowed."},
      {"usage_by_object", Flag{&s.usage_by_object},
       "Count per object and operation too, for `GET /.tollgate/usage`."},
      {"limits", Group{describe_limits(s.limits)}, "Largest sizes and counts."},
      {"overload", Group{describe_overload(s.overload)},
       "When to turn requests away because a worker cannot keep up."},
      {"timeouts", Group{describe_timeouts(s.timeouts)}, "Longest waits."},
      {"proxy", Group{describe_proxy(s.proxy)}, "How replies look and whom to believe."},
  };
}

const Names& algorithm_names() {
  static const Names names{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
                           "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"};
  return names;
}
const Names& session_names() {
  static const Names names{"creatio", "cherwell"};
  return names;
}
const Names& dialect_names() {
  static const Names names{"creatio", "zoho", "cherwell", "rest"};
  return names;
}
const Names& system_names() {
  static const Names names{"bpmonline", "creatio_partner", "zoho", "cherwell", "none"};
  return names;
}
const Names& retry_names() {
  static const Names names{"connect", "closed", "timeout", "502", "503", "504"};
  return names;
}
const Names& dimension_names() {
  static const Names names{"tenant", "organization", "product", "user", "object", "operation"};
  return names;
}
const Names& operation_names() {
  static const Names names{"read", "create", "edit", "delete", "execute"};
  return names;
}

}  // namespace tollgate::config
