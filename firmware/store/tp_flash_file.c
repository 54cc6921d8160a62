#include "tinypeft/tp_flash_file.h"

static int inside(const tp_flash *flash, uint32_t offset, uint32_t length) {
  const uint32_t bytes = flash->sector_bytes * flash->sectors;
  return offset <= bytes && length <= bytes - offset;
}

static tp_status read(void *context, uint32_t offset, void *data, uint32_t length) {
  tp_flash_file *file = context;
  if (!inside(&file->flash, offset, length) || fseek(file->file, (long)offset, SEEK_SET) != 0 ||
      fread(data, 1, length, file->file) != length) {
    return TP_ERR_FLASH;
  }
  return TP_OK;
}

static tp_status fill(tp_flash_file *file, uint32_t length) {
  for (uint32_t i = 0; i < length; i++) {
    if (putc(file->flash.erased, file->file) == EOF) {
      return TP_ERR_FLASH;
    }
  }
  return fflush(file->file) == 0 ? TP_OK : TP_ERR_FLASH;
}

static int all_erased(tp_flash_file *file, uint32_t offset, uint32_t length) {
  if (fseek(file->file, (long)offset, SEEK_SET) != 0) {
    return 0;
  }
  for (uint32_t i = 0; i < length; i++) {
    if (getc(file->file) != file->flash.erased) {
      return 0;
    }
  }
  return 1;
}

static tp_status prog(void *context, uint32_t offset, const void *data, uint32_t length) {
  tp_flash_file *file = context;
  const uint32_t unit = file->flash.write_unit;
  if (!inside(&file->flash, offset, length) || offset % unit != 0 || length % unit != 0 ||
      !all_erased(file, offset, length) || fseek(file->file, (long)offset, SEEK_SET) != 0 ||
      fwrite(data, 1, length, file->file) != length || fflush(file->file) != 0) {
    return TP_ERR_FLASH;
  }
  return TP_OK;
}

static tp_status erase(void *context, uint32_t sector) {
  tp_flash_file *file = context;
  const uint32_t bytes = file->flash.sector_bytes;
  if (sector >= file->flash.sectors || fseek(file->file, (long)(sector * bytes), SEEK_SET) != 0) {
    return TP_ERR_FLASH;
  }
  return fill(file, bytes);
}

tp_status tp_flash_file_open(tp_flash_file *file, const char *path, uint32_t sector_bytes, uint32_t sectors,
                             uint32_t write_unit, uint8_t erased) {
  file->flash = (tp_flash){
      .context = file,
      .read = read,
      .prog = prog,
      .erase = erase,
      .sector_bytes = sector_bytes,
      .sectors = sectors,
      .write_unit = write_unit,
      .erased = erased,
  };
  file->file = fopen(path, "r+b");
  if (file->file == NULL) {
    file->file = fopen(path, "w+bx"); /* x: what exists and may not be written stays as it is */
  }
  if (file->file == NULL) {
    return TP_ERR_FLASH;
  }
  const long wanted = (long)(sector_bytes * sectors);
  const long there = fseek(file->file, 0, SEEK_END) == 0 ? ftell(file->file) : -1;
  tp_status status = there < 0 ? TP_ERR_FLASH : there != 0 && there != wanted ? TP_ERR_SIZE : TP_OK;
  if (status == TP_OK) {
    status = fill(file, (uint32_t)(wanted - there));
  }
  if (status != TP_OK) {
    tp_flash_file_close(file);
  }
  return status;
}

void tp_flash_file_close(tp_flash_file *file) {
  if (file->file != NULL) {
    (void)fclose(file->file);
    file->file = NULL;
  }
}
