//! Runs a compiled model from Rust, with the standard library alone.
//!
//!     rustc -O run_model.rs
//!     ./run_model FOLDER ROWS in0.bin [in1.bin ...] -- out0.bin BYTES [out1.bin BYTES ...]
//!
//! Inputs and outputs are raw numbers in the order, shape and dtype that model.json in FOLDER says.

use std::alloc::{alloc, Layout};
use std::ffi::{c_char, c_int, c_void, CString};
use std::fs;
use std::mem::{size_of, transmute};
use std::os::fd::AsRawFd;
use std::process::exit;
use std::ptr::null;

const ABI: u32 = 1;
const ALIGN: usize = 64;

extern "C" {
    fn dlopen(path: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn mmap(at: *mut c_void, size: usize, access: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void;
}

/// `fm_bound` of fleet_model.h: everything a call needs.
#[repr(C)]
struct Bound {
    size: u32,
    rows: u32,
    inputs: *const *const c_void,
    outputs: *const *mut c_void,
    weights: *const c_void,
    workspace: *mut c_void,
    host: *const c_void,
}

fn fail(words: &str) -> ! {
    eprintln!("{words}");
    exit(1)
}

struct Library(*mut c_void);

impl Library {
    fn open(path: &str) -> Library {
        let name = CString::new(path).unwrap();
        let library = unsafe { dlopen(name.as_ptr(), 2) };
        if library.is_null() {
            fail(&format!("{path} cannot be loaded"));
        }
        Library(library)
    }

    fn take(&self, name: &str) -> *mut c_void {
        let wanted = CString::new(name).unwrap();
        let found = unsafe { dlsym(self.0, wanted.as_ptr()) };
        if found.is_null() {
            fail(&format!("there is no {name}"));
        }
        found
    }
}

/// The weights lie in the page cache, shared with every process that maps the same file.
fn map(path: &str, size: usize) -> *const c_void {
    let file = fs::File::open(path).unwrap_or_else(|error| fail(&format!("{path}: {error}")));
    if file.metadata().map(|about| about.len() as usize).unwrap_or(0) != size {
        fail(&format!("{path} has a wrong size"));
    }
    let at = unsafe { mmap(std::ptr::null_mut(), size, 1, 1, file.as_raw_fd(), 0) };
    if at as isize == -1 {
        fail(&format!("{path} cannot be mapped"));
    }
    at
}

/// A file's bytes where any number may begin: a `Vec<u8>` promises no alignment.
fn read(path: &str) -> Vec<u64> {
    let bytes = fs::read(path).unwrap_or_else(|error| fail(&format!("{path}: {error}")));
    let mut words = vec![0u64; bytes.len().div_ceil(8).max(1)];
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), words.as_mut_ptr().cast::<u8>(), bytes.len()) };
    words
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.len() < 4 {
        eprintln!("usage: {} FOLDER ROWS IN... -- OUT BYTES...", args[0]);
        exit(2);
    }
    let (folder, rows) = (&args[1], args[2].parse::<u32>().unwrap_or(1));
    let library = Library::open(&format!("{folder}/kernels"));
    let abi: extern "C" fn() -> u32 = unsafe { transmute(library.take("fm_abi")) };
    let need: extern "C" fn(u32) -> usize = unsafe { transmute(library.take("fm_workspace")) };
    let weigh: extern "C" fn() -> usize = unsafe { transmute(library.take("fm_weights")) };
    let call: extern "C" fn(*const Bound) -> c_int = unsafe { transmute(library.take("fm_call")) };
    if abi() != ABI {
        fail(&format!("the model is of version {}", abi()));
    }
    let weights = if weigh() > 0 { map(&format!("{folder}/weights"), weigh()) } else { null() };
    let workspace = unsafe { alloc(Layout::from_size_align(need(rows).max(1), ALIGN).unwrap()) };

    let split = args.iter().position(|word| word == "--").unwrap_or(args.len());
    let inputs: Vec<Vec<u64>> = args[3..split].iter().map(|path| read(path)).collect();
    let mut outputs: Vec<(String, Vec<u64>, usize)> = args[(split + 1).min(args.len())..]
        .chunks_exact(2)
        .map(|pair| {
            let bytes = pair[1].parse::<usize>().unwrap_or(0);
            (pair[0].clone(), vec![0u64; bytes.div_ceil(8).max(1)], bytes)
        })
        .collect();
    let from: Vec<*const c_void> = inputs.iter().map(|data| data.as_ptr().cast()).collect();
    let into: Vec<*mut c_void> = outputs.iter_mut().map(|(_, data, _)| data.as_mut_ptr().cast()).collect();
    let bound = Bound {
        size: size_of::<Bound>() as u32,
        rows,
        inputs: from.as_ptr(),
        outputs: into.as_ptr(),
        weights,
        workspace: workspace.cast(),
        host: null(),
    };
    let code = call(&bound);
    if code != 0 {
        fail(&format!("the model returned {code}"));
    }
    for (path, data, bytes) in &outputs {
        let raw = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), *bytes) };
        fs::write(path, raw).unwrap_or_else(|error| fail(&format!("{path}: {error}")));
    }
}
