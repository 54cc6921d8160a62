#include "tinypeft/tp_types.h"

#define TP_STATUS_CASE(name, value, text) \
  case name:                              \
    return text;

const char *tp_status_text(tp_status status) {
  switch (status) {
    TP_STATUS_TABLE(TP_STATUS_CASE)
    case TP_STATUS_END:
    default:
      return "unknown status";
  }
}
