/* llhttp, the parser of Node.js, as Debian's package node-llhttp brings it: sources, no library. In its strict mode it is
 * the second opinion of the HTTP fuzz targets (second_reader.h). Its state machine is in llhttp_machine.c: the two declare
 * the same functions with different types. */
#include <llhttp/api.c>
#include <llhttp/http.c>
