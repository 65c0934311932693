/* What a bare Windows library needs: an entry point, the mark of floating point, and a stack grown page by page. */
int _fltused = 0;
int __stdcall fm_dll(void *module, unsigned long reason, void *reserved);
int __stdcall fm_dll(void *module, unsigned long reason, void *reserved) {
    (void)module, (void)reason, (void)reserved;
    return 1;
}
#if defined(__x86_64__)
/* Called before a frame of more than a page: rax has its size and keeps it. */
__asm__(".globl ___chkstk_ms\n"
        "___chkstk_ms:\n"
        "    push %rcx\n"
        "    push %rax\n"
        "    lea 24(%rsp), %rcx\n"
        "1:  cmp $4096, %rax\n"
        "    jb 2f\n"
        "    sub $4096, %rcx\n"
        "    orq $0, (%rcx)\n"
        "    sub $4096, %rax\n"
        "    jmp 1b\n"
        "2:  sub %rax, %rcx\n"
        "    orq $0, (%rcx)\n"
        "    pop %rax\n"
        "    pop %rcx\n"
        "    ret\n");
#endif
