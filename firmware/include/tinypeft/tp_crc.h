/* The two checksums on the wire: CRC-16/XMODEM of a frame, CRC-32 (IEEE 802.3) of data. One nibble table, 64 bytes. */
#ifndef TP_CRC_H
#define TP_CRC_H

#include <stdint.h>

/* CRC-16/XMODEM: polynomial 0x1021, initial value 0, not reflected; of "123456789" 0x31C3. */
uint16_t tp_crc16(const uint8_t *data, uint32_t length);

/* CRC-32 of zlib and IEEE 802.3; of "123456789" 0xCBF43926. Begin with crc = 0; pass a result on to continue it.
 * `data` may be NULL where `length` is 0. */
uint32_t tp_crc32(uint32_t crc, const void *data, uint32_t length);

#endif
