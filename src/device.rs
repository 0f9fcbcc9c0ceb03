//! Where tensors live: `auto`, `cpu` or `cuda:N`.
//!
//! The default binary links only libtorch's CPU part. Its CUDA part is loaded from beside it when asked for, before the first
//! CUDA query: libtorch caches a "no CUDA" answer for the life of the process.
#![allow(unsafe_code)] // loading a library runs its initialisers; the path is that of the libtorch already loaded

use std::path::{Path, PathBuf};

use tch::{Cuda, Device};

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not one of the three forms.
    #[error("device `{0}`: must be `auto`, `cpu` or `cuda:N`")]
    Syntax(String),
    /// The CUDA part of libtorch is not there or does not load.
    #[error("device `{device}`: {reason}")]
    Cuda {
        /// What was asked for.
        device: String,
        /// Why it cannot be had.
        reason: String,
    },
}

/// The device a run uses, and one line on why it is that one.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenDevice {
    /// Where tensors go.
    pub device: Device,
    /// For the log: why `auto` chose it, or what was asked for.
    pub reason: String,
}

/// Turns `auto`, `cpu` or `cuda:N` into a device; `auto` takes the first GPU that works and else says why it is the CPU.
///
/// # Errors
/// [`DeviceError::Cuda`] when `cuda:N` was asked for and cannot be had; `auto` never fails.
pub fn choose(name: &str) -> Result<ChosenDevice, DeviceError> {
    match name {
        "cpu" => Ok(ChosenDevice { device: Device::Cpu, reason: "cpu was asked for".to_owned() }),
        "auto" => Ok(match cuda(0) {
            Ok(device) => ChosenDevice { device, reason: "auto: the first GPU".to_owned() },
            Err(reason) => ChosenDevice { device: Device::Cpu, reason: format!("auto: the CPU, because {reason}") },
        }),
        _ => {
            let index = name
                .strip_prefix("cuda:")
                .and_then(|digits| digits.parse::<usize>().ok())
                .ok_or_else(|| DeviceError::Syntax(name.to_owned()))?;
            let device = cuda(index).map_err(|reason| DeviceError::Cuda { device: name.to_owned(), reason })?;
            Ok(ChosenDevice { device, reason: format!("{name} was asked for") })
        }
    }
}

/// Waits for everything queued on the device, so that a stage's time is its own.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// The name under which [`choose`] finds a device.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// CPU threads of every operation from here on, in the whole process.
///
/// Sparse convolution runs on threads of its own, whose number can be set only before the first of them works: a later call changes
/// libtorch's alone.
pub fn set_cpu_threads(n_threads: i32) {
    tch::set_num_threads(n_threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads.max(0) as usize);
    if let Err(error) = pool.build_global() {
        tracing::debug!(%error, "the number of threads for sparse convolution stays");
    }
}

/// CPU threads of one operation.
pub fn cpu_threads() -> i32 {
    tch::get_num_threads()
}

fn cuda(index: usize) -> Result<Device, String> {
    load_cuda_part()?;
    let count = Cuda::device_count();
    if !Cuda::is_available() || count == 0 {
        return Err("libtorch_cuda is loaded but finds no usable NVIDIA driver or GPU".to_owned());
    }
    nth_gpu(index, count)
}

fn nth_gpu(index: usize, count: i64) -> Result<Device, String> {
    // Any index is a usize; as an i64, the largest would be negative.
    match usize::try_from(count) {
        Ok(count) if index < count => Ok(Device::Cuda(index)),
        _ => Err(format!("there are {count} GPUs, numbered from 0")),
    }
}

/// Loads `libtorch_cuda.so` once per process, from the folder the running libtorch came from.
fn load_cuda_part() -> Result<(), String> {
    static LOADED: std::sync::OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    LOADED
        .get_or_init(|| {
            let path = libtorch_folder()?.join("libtorch_cuda.so");
            if !path.exists() {
                return Err(format!(
                    "{} is missing; point LD_LIBRARY_PATH to the lib folder of a CUDA libtorch 2.11",
                    path.display()
                ));
            }
            use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
            // SAFETY: the library belongs to the libtorch this process already runs on.
            let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| error.to_string())?;
            std::mem::forget(library); // its kernels stay registered for the life of the process
            Ok(())
        })
        .clone()
}

/// The folder of the `libtorch_cpu.so` mapped into this process, links resolved.
fn libtorch_folder() -> Result<PathBuf, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])))
        .find(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"))
        .ok_or("libtorch_cpu.so is not mapped")?;
    let resolved = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
    resolved.parent().map(Path::to_path_buf).ok_or_else(|| format!("{} has no folder", resolved.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_parse_or_say_what_is_allowed() {
        assert_eq!(choose("cpu").expect("cpu is always there").device, Device::Cpu);
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let message = choose(wrong).expect_err(wrong).to_string();
            assert!(message.contains("must be `auto`, `cpu` or `cuda:N`"), "{message}");
        }
    }

    #[test]
    fn gpus_beyond_those_there_are_are_refused() {
        assert_eq!(nth_gpu(1, 2), Ok(Device::Cuda(1)));
        for (index, count) in [(2, 2), (usize::MAX, 2), (1 << 63, 2), (0, 0), (0, -1)] {
            assert_eq!(nth_gpu(index, count), Err(format!("there are {count} GPUs, numbered from 0")));
        }
    }

    #[test]
    fn auto_device_always_gives_a_reason() {
        let chosen = choose("auto").expect("auto never fails");
        assert!(chosen.reason.starts_with("auto: "), "{}", chosen.reason);
    }
}
