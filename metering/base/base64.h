// Base64 and base64url (RFC 4648).
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace tollgate {

std::string base64url_encode(std::string_view bytes);  // without padding (RFC 7515 section 2)
// Strict: url alphabet, no padding, no white space, unused bits zero; else nullopt. One text decodes from one spelling only.
std::optional<std::string> base64url_decode(std::string_view text);
std::string base64_encode(std::string_view bytes);  // with padding (RFC 7617 user-pass, WebSocket keys)
std::optional<std::string> base64_decode(std::string_view text);  // strict: padding required

}  // namespace tollgate
