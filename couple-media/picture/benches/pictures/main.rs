//! Renders pictures of a phone, compared with sharp (libvips) and with Pillow in a forked process.
//!
//! With the feature `heic`, HEIC is compared with Pillow over libheif.
//!
//! Each runs as a separate process on one core. Ours and sharp's render a picture once unmeasured and then several times, and print the
//! processor time per picture; Pillow's starts a process for each picture and includes the start, as measured in production. Five
//! rounds, interleaved; the bench prints medians.
//!
//! Then it measures similarity: luma SSIM of what each writes at quality 100 to the picture, decoded by another decoder and resized
//! in one step.
//!
//! It runs `setup` in this folder, which installs the two from their registries into `target/pictures`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may panic")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use couple_picture::{self as picture, AVATARS, Encoding, Limits, PHOTOS, Recipe};
use image::imageops;

const ROUNDS: usize = 5;

const JOBS: &[(&str, &str, &str)] = &[
    ("12 MP JPEG → avatars", "phone.jpg", "avatars"),
    ("12 MP JPEG → photos", "phone.jpg", "photos"),
    ("12 MP progressive JPEG → avatars", "progressive.jpg", "avatars"),
    ("12 MP PNG → avatars", "photo.png", "avatars"),
    ("2 MP WebP → avatars", "photo.webp", "avatars"),
    ("2 MP WebP → avatars, by libwebp", "photo.webp", "avatars libwebp"),
    ("12 MP Display-P3 JPEG → avatars", "p3.jpg", "avatars"),
    ("12 MP zone plate → avatars", "plate.jpg", "avatars"),
    #[cfg(feature = "heic")]
    ("12 MP HEIC → avatars", "phone.heic", "avatars"),
    #[cfg(feature = "heic")]
    ("12 MP HEIC → photos", "phone.heic", "photos"),
];

/// Renders a file `times` times and prints the time and memory, as `compare.mjs` does with sharp.
fn ours(file: &Path, what: &str, times: u32) {
    let bytes = std::fs::read(file).unwrap();
    let renditions = if what.starts_with("avatars") { AVATARS.to_vec() } else { PHOTOS.to_vec() };
    let recipe = Recipe { renditions, crop: None, encoding: Encoding::JPEG };
    let limits = Limits::default().with_libwebp(what.ends_with("libwebp"));
    let once = || picture::render(&bytes, &recipe, &limits).unwrap();
    std::hint::black_box(once());
    let before = processor_time();
    for _ in 0..times {
        std::hint::black_box(once());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak = peak.split_whitespace().nth(1).unwrap();
    println!("{} {peak}", (processor_time() - before) / f64::from(times));
}

/// SSIM of each rendition to the reference, ours and sharp's.
fn likeness(folder: &Path, file: &str, what: &str) {
    let path = folder.join(file);
    let reference = image::load_from_memory(&std::fs::read(&path).unwrap()).unwrap().into_rgb8();
    let (width, height) = reference.dimensions();
    let side = width.min(height);
    let (renditions, reference) = if what == "avatars" {
        let (x, y) = ((width - side) / 2, (height - side) / 2);
        (AVATARS.to_vec(), imageops::crop_imm(&reference, x, y, side, side).to_image())
    } else {
        (PHOTOS.to_vec(), reference)
    };
    let prefix = folder.join("seen-");
    let sharp = Command::new("node")
        .arg(folder.join("compare.mjs"))
        .args([path.to_str().unwrap(), what, "seen", prefix.to_str().unwrap()])
        .status();
    assert!(sharp.unwrap().success());
    let recipe = Recipe { renditions, crop: None, encoding: Encoding::Jpeg { quality: 100 } };
    for ours in picture::render(&std::fs::read(&path).unwrap(), &recipe, &Limits::default()).unwrap().images {
        let wanted = imageops::resize(&reference, ours.width, ours.height, imageops::FilterType::Lanczos3);
        let theirs = std::fs::read(folder.join(format!("seen-{}.jpg", ours.name))).unwrap();
        let theirs = image::load_from_memory(&theirs).unwrap().into_rgb8();
        println!(
            "{file:16} {:>4}   ours {:.4}   sharp {:.4}",
            ours.name,
            support::ssim(&support::seen(&ours), &wanted),
            support::ssim(&theirs, &wanted),
        );
    }
}

/// Processor time of this process so far, in milliseconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// Runs a command on one core; returns the two numbers that it prints.
fn measured(command: &[&str]) -> (f64, f64) {
    let output = Command::new("taskset").args(["-c", "1"]).args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let (time, memory) = said.trim().split_once(' ').unwrap();
    (time.parse().unwrap(), memory.parse::<f64>().unwrap() / 1024.0)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, ours_alone, file, what, times] = &arguments[..]
        && ours_alone == "ours"
    {
        return ours(Path::new(file), what, times.parse().unwrap());
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder: PathBuf = std::env::var_os("COUPLE_BENCH_PICTURES")
        .map_or_else(|| here.join("../../target/pictures"), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("p3.icc"), moxcms::ColorProfile::new_display_p3().encode().unwrap()).unwrap();
    assert!(Command::new(here.join("benches/pictures/setup")).arg(&folder).status().unwrap().success());
    let myself = std::env::current_exe().unwrap();
    let in_folder = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    println!(
        "processor time for each picture in ms, and the process's peak memory in MiB; medians of {ROUNDS}"
    );
    for &(job, file, what) in JOBS {
        let (file, times) = (in_folder(file), "5");
        let (script, python, pillow) =
            (in_folder("compare.mjs"), in_folder("python/bin/python"), in_folder("compare.py"));
        let theirs = what.trim_end_matches(" libwebp");
        let commands: [&[&str]; 3] = [
            &[myself.to_str().unwrap(), "ours", &file, what, times],
            &[&python, &pillow, &file, theirs],
            // sharp from npm decodes no HEIC.
            if file.ends_with("heic") { &[] } else { &["node", &script, &file, theirs, times] },
        ];
        let mut seen = [const { (Vec::new(), Vec::new()) }; 3];
        for _ in 0..ROUNDS {
            for (command, (times, memories)) in commands.iter().zip(&mut seen) {
                if command.is_empty() {
                    continue;
                }
                let (time, memory) = measured(command);
                times.push(time);
                memories.push(memory);
            }
        }
        let [ours, pillow, sharp] = seen;
        let ours = (median(ours.0), median(ours.1));
        print!("{job:34} ours {:6.1} {:4.0}", ours.0, ours.1);
        for (name, (times, memories)) in [("Pillow", pillow), ("sharp", sharp)] {
            if !times.is_empty() {
                let (time, memory) = (median(times), median(memories));
                print!("   {name} {time:6.1} {memory:4.0}, ours is {:.2} of it", ours.0 / time);
            }
        }
        println!();
    }
    println!("luma SSIM at quality 100");
    for (file, what) in [
        ("phone.jpg", "avatars"),
        ("phone.jpg", "photos"),
        ("progressive.jpg", "avatars"),
        ("photo.png", "avatars"),
        ("photo.webp", "avatars"),
        ("plate.jpg", "avatars"),
        ("plate.png", "avatars"),
    ] {
        likeness(&folder, file, what);
    }
}
