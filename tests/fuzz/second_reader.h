// A second opinion about HTTP/1.1 messages: llhttp (the parser of Node.js) in strict mode, which shares no line with
// proxy/http. And the form that a request must have on its way to an upstream, checked line by line from the grammar.
//
//   Reading seen = read_requests(bytes);       // all messages of a connection, to the first failure
//   seen.messages.size(), seen.messages[0].body, seen.error ("" when all bytes were good so far)
//
// llhttp knows a fixed list of methods: knows_method() says which; others it refuses.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tollgate::fuzz {

struct Message {
  std::string method, target;                               // of a request
  int status = 0;                                           // of a response
  std::vector<std::pair<std::string, std::string>> fields;  // trailers come last
  std::string body;
  bool complete = false;
  bool upgrade = false;  // what follows is another protocol
};

struct Reading {
  std::vector<Message> messages;  // the last one may be incomplete
  std::string error;              // of llhttp; empty: none
};

bool knows_method(std::string_view method);
Reading read_requests(std::string_view bytes);
// head: the response answers HEAD, so it has no body whatever it says. closed: the connection ends after `bytes`.
Reading read_responses(std::string_view bytes, bool head, bool closed);

// What is wrong with a request head as a message to an upstream; empty: nothing. Exactly:
//   token SP visible ASCII SP HTTP/1.1 CRLF *( token ":" SP value CRLF ) CRLF, no control byte but HTAB in a value, no
//   blank around one; one Host; at most one of Content-Length and Transfer-Encoding, once, digits or `chunked`; no field of
//   one connection but Connection: upgrade / TE and their Upgrade and TE; no name of a framing or connection field written
//   with '_' for '-'.
std::string not_canonical(std::string_view head);

}  // namespace tollgate::fuzz
