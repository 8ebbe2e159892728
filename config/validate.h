// Rules between keys: what each value alone cannot show. Adds to outcome.diagnostics, each with the place of
// the key at fault. Called by parse() last; pure.
#pragma once
#include "config/parse.h"

namespace tollgate::config {

void validate(ParseOutcome& outcome);

// The place of a key by its path ("routes[1].upstream"), or of the nearest level above it that was in the
// file.
Position position_of(const Positions& positions, std::string path);

}  // namespace tollgate::config
