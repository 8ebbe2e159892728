// Bytes for whoever reads our standard output, our standard error or a pipe, without waiting for him: a reader that has
// stopped reading (a stuck log shipper, a stopped terminal) never stops the writer.
//
// A pipe that poll() calls writable takes PIPE_BUF bytes without blocking (pipe(7)), unless somebody else fills it
// in between: both streams of a process, and those of its neighbours, often share one (`2>&1 | logger`). So the pipe
// is opened anew, without blocking. The descriptor that was inherited is left as it is: its flags are shared.
//
// Threads: any.
#pragma once
#include <sys/types.h>

#include <string_view>

#include "metering/base/time.h"

namespace tollgate::telemetry {

// A descriptor of our own for what fd has open: a pipe or a terminal without blocking, anything else, or what may not
// be opened anew, as a duplicate. -1: errno says why.
int open_output(int fd);

// Waits for at most `patience` until fd takes something, then writes once: as many whole lines of the text as fit
// into PIPE_BUF, which a pipe takes together or not at all; of a longer line, PIPE_BUF bytes. SIGPIPE must be ignored.
// Result: bytes taken; 0: none in that time; -1: it takes nothing any more, errno says why (EPIPE, ENOSPC).
ssize_t write_within(int fd, std::string_view text, Milliseconds patience);

}  // namespace tollgate::telemetry
