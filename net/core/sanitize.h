/* Lets AddressSanitizer see the borders inside our own pools; nothing without it. */
#ifndef LIBOS_SANITIZE_H
#define LIBOS_SANITIZE_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define LIBOS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LIBOS_ASAN 1
#endif
#endif

#ifdef LIBOS_ASAN
void __asan_poison_memory_region(void const volatile *addr, size_t size);
void __asan_unpoison_memory_region(void const volatile *addr, size_t size);
#define memory_poison(addr, size) __asan_poison_memory_region((addr), (size))
#define memory_unpoison(addr, size) __asan_unpoison_memory_region((addr), (size))
#else
#define memory_poison(addr, size) ((void)(addr), (void)(size))
#define memory_unpoison(addr, size) ((void)(addr), (void)(size))
#endif

#endif
