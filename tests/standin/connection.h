// One client connection of the stand-in CRM, served on its own thread until it closes: requests are read with
// Boost.Beast, answered by the Crm, spoilt as the Control says.
#pragma once
#include "tests/standin/crm.h"
#include "tests/standin/settings.h"
#include "tests/standin/stream.h"

namespace tollgate::standin {

void serve_connection(Stream stream, Crm& crm, Control& control);

}  // namespace tollgate::standin
