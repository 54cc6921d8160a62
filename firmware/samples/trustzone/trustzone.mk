# Part of a project's Makefile: two images for a Cortex-M33 with TrustZone, see docs/trustzone.md of tinypeft.
#
#   make trustzone        build/trustzone/secure.elf and nonsecure.elf
#   make trustzone-run    both under QEMU; Ctrl-C ends it
#
# DEVICE_SECRET=<64 hex digits> is what keys derive from; without it the first build draws one, which `clean` removes.

TZ := $(BUILD)/trustzone
TZ_FLAGS := $(TRUSTZONE_MODEL) -Itrustzone -I$(TZ)
TZ_LINK := $(filter-out -Tboard/linker.ld,$(LINK))

TZ_LEFT_OUT := board/startup.c firmware/runtime/main.c firmware/runtime/tp_board.c $(filter %_device.c,$(MODEL))
TZ_SECURE_SOURCES := $(filter-out $(TZ_LEFT_OUT),$(SOURCES)) trustzone/text.c $(wildcard trustzone/secure/*.c)
TZ_SECURE := $(patsubst %,$(TZ)/secure/%.o,$(basename $(TZ_SECURE_SOURCES)))
TZ_NONSECURE_SOURCES := $(filter firmware/consoles/%,$(SOURCES)) trustzone/text.c $(wildcard trustzone/nonsecure/*.c)
TZ_NONSECURE := $(TZ_NONSECURE_SOURCES:%.c=$(TZ)/nonsecure/%.o)

.PHONY: trustzone trustzone-run
trustzone: $(TZ)/secure.elf $(TZ)/nonsecure.elf

$(TZ)/secure.elf: $(TZ_SECURE) $(TZ)/secure.ld
	$(CROSS)gcc $(CPU) $(TZ_LINK) -T$(TZ)/secure.ld -Wl,-Map=$(TZ)/secure.map \
	  -Wl,--cmse-implib -Wl,--out-implib=$(TZ)/secure_entry.o $(TZ_SECURE) -lc -lgcc -o $@

$(TZ)/nonsecure.elf: $(TZ_NONSECURE) $(TZ)/secure.elf $(TZ)/nonsecure.ld
	$(CROSS)gcc $(CPU) $(TZ_LINK) -T$(TZ)/nonsecure.ld -Wl,-Map=$(TZ)/nonsecure.map \
	  $(TZ_NONSECURE) $(TZ)/secure_entry.o -lc -lgcc -o $@

$(TZ)/%.ld: trustzone/%.lds trustzone/memory_map.h
	@mkdir -p $(@D)
	$(CROSS)gcc -E -P -x c -Itrustzone $< -o $@

# What the attacks of the sample aim at.
$(TZ)/secure_addresses.h: $(TZ)/secure.elf
	$(CROSS)nm $< | awk '$$3 ~ /^(tp_model_(arena|adapter|training)|tp_device_secret|key_derive|tp_service_learn)$$/ \
	  {print "#define SECURE_" $$3 " 0x" $$1 "u"}' > $@

$(TZ)/device_secret.h: trustzone/trustzone.mk
	@mkdir -p $(@D)
	@printf '#define TP_DEVICE_SECRET ' > $@
	@printf '%s' "$${DEVICE_SECRET:-$$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}" | sed 's/../0x&, /g' >> $@
	@echo >> $@

$(TZ)/secure/trustzone/secure/hooks.o: $(TZ)/device_secret.h
$(TZ)/nonsecure/trustzone/nonsecure/attacks.o: $(TZ)/secure_addresses.h

$(TZ)/secure/%.o: %.c Makefile trustzone/trustzone.mk
	@mkdir -p $(@D)
	$(CROSS)gcc $(CPU) -mcmse $(FLAGS) $(INCLUDES) $(BOARD_FLAGS) $(TZ_FLAGS) -MMD -MP -c $< -o $@

$(TZ)/secure/%.o: %.S Makefile trustzone/trustzone.mk
	@mkdir -p $(@D)
	$(CROSS)gcc $(CPU) $(BOARD_FLAGS) -MMD -MP -c $< -o $@

$(TZ)/nonsecure/%.o: %.c Makefile trustzone/trustzone.mk
	@mkdir -p $(@D)
	$(CROSS)gcc $(CPU) $(FLAGS) $(INCLUDES) -Itrustzone/nonsecure $(TZ_FLAGS) -MMD -MP -c $< -o $@

trustzone-run: trustzone
	qemu-system-arm -M mps2-an505 -display none -monitor none -chardev stdio,id=console,mux=on,signal=on \
	  -serial chardev:console -serial chardev:console -kernel $(TZ)/secure.elf -device loader,file=$(TZ)/nonsecure.elf

-include $(TZ_SECURE:.o=.d) $(TZ_NONSECURE:.o=.d)
