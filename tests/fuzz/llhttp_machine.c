/* See llhttp_interface.c. */
#include <llhttp/llhttp.c>
