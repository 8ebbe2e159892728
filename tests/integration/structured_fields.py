"""Structured Fields (RFC 9651): a strict parser of Lists of Items with Parameters, as RateLimit fields use them."""
import base64
import re


class Malformed(ValueError):
    pass


def parse_list(text):
    """[(item, {parameter: value})]; strings come as str, tokens as Token, numbers as int or float."""
    reader = Reader(text.strip(" "))
    out = []
    while not reader.done():
        out.append((reader.item(), reader.parameters()))
        reader.skip_ows()
        if reader.done():
            return out
        reader.expect(",")
        reader.skip_ows()
        if reader.done():
            raise Malformed("trailing comma")
    return out


class Token(str):
    pass


class Reader:
    def __init__(self, text):
        if not text.isascii():
            raise Malformed("not ASCII")
        self.text = text
        self.at = 0

    def done(self):
        return self.at >= len(self.text)

    def peek(self):
        return self.text[self.at] if not self.done() else ""

    def expect(self, char):
        if self.peek() != char:
            raise Malformed(f"expected {char!r} at {self.at} of {self.text!r}")
        self.at += 1

    def skip_ows(self):
        while self.peek() in (" ", "\t") and not self.done():
            self.at += 1

    def match(self, pattern):
        found = re.compile(pattern).match(self.text, self.at)
        if not found:
            raise Malformed(f"{pattern} does not match at {self.at} of {self.text!r}")
        self.at = found.end()
        return found.group(0)

    def item(self):
        char = self.peek()
        if char == '"':
            raw = self.match(r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"')
            return raw[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        if char == ":":
            return base64.b64decode(self.match(r":[A-Za-z0-9+/=]*:")[1:-1], validate=True)
        if char == "?":
            return self.match(r"\?[01]") == "?1"
        if char.isdigit() or char == "-":
            raw = self.match(r"-?[0-9]+(\.[0-9]{1,3})?")
            if len(raw.lstrip("-").split(".")[0]) > 15:
                raise Malformed("number too long")
            return float(raw) if "." in raw else int(raw)
        return Token(self.match(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"))

    def parameters(self):
        out = {}
        while self.peek() == ";":
            self.at += 1
            while self.peek() == " ":
                self.at += 1
            name = self.match(r"[a-z*][a-z0-9_.*-]*")
            out[name] = True
            if self.peek() == "=":
                self.at += 1
                out[name] = self.item()
        return out
