/* Marks a region of code for an emulator that counts instructions; free of effect, one instruction each. */
#ifndef TP_COUNT_H
#define TP_COUNT_H

#if defined(__arm__) && defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB >= 2
#define TP_COUNT_BEGIN() __asm__ volatile("orr.w r10, r10, r10" ::: "memory")
#define TP_COUNT_END() __asm__ volatile("orr.w r11, r11, r11" ::: "memory")
#elif defined(__arm__) && defined(__thumb__) /* Armv6-M and Armv8-M Baseline have no such encoding */
#define TP_COUNT_BEGIN() __asm__ volatile("mov r10, r10" ::: "memory")
#define TP_COUNT_END() __asm__ volatile("mov r11, r11" ::: "memory")
#else
#define TP_COUNT_BEGIN() ((void)0)
#define TP_COUNT_END() ((void)0)
#endif

#endif
